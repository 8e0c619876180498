"""How the page looks: on a screen, on a phone, in the dark and on paper."""

STYLE = """
:root{--ink:#1b2430;--soft:#56606e;--line:#d9dde3;--paper:#fff;--page:#f4f5f7;--accent:#0b5c6b;--tint:#e4f0f2;
--proven:#155f35;--proven-bg:#e2f2e8;--tested:#1d4f9c;--tested-bg:#e4ecf9;--heuristic:#7a4a00;
--heuristic-bg:#fbeed6;
--warn:#8c2f1b;--warn-bg:#fbe9e4}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#a5afbc;--line:#38424f;--paper:#1a212a;
--page:#11161c;
--accent:#6cc5d3;--tint:#17333a;--proven:#8fdcae;--proven-bg:#15352a;--tested:#a3c4fb;--tested-bg:#1a2c4a;
--heuristic:#f0c679;--heuristic-bg:#3b2c10;--warn:#f3a692;--warn-bg:#43201a}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,"DejaVu Sans",sans-serif}
.skip{position:absolute;left:-999px}
.skip:focus{left:1rem;top:1rem;background:var(--paper);padding:.5rem 1rem;z-index:2}
header,main,footer{max-width:70rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.5rem;padding-bottom:.5rem}
.kicker{margin:0;color:var(--accent);font-weight:600;font-size:.85rem;letter-spacing:.06em;
text-transform:uppercase}
h1{font-size:2.1rem;line-height:1.2;margin:.2rem 0 .4rem}
h2{font-size:1.4rem;margin:0 0 .8rem}
h3{font-size:1.05rem;margin:1.6rem 0 .5rem}
p{margin:.5rem 0;max-width:50rem}
a{color:var(--accent)}
a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:3px solid var(--accent);
outline-offset:2px}
nav ul{display:flex;flex-wrap:wrap;gap:.3rem .9rem;list-style:none;margin:1rem 0 0;padding:.7rem 0;
border-top:1px solid var(--line);border-bottom:1px solid var(--line);font-size:.92rem}
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:1.4rem 1.5rem;
margin:1.2rem 0}
.meta,.none,.soft{color:var(--soft)}
.meta{font-size:.92rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.8rem;margin:0 0 1.2rem;
padding:0}
.cards>div{border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem}
.cards dt{color:var(--soft);font-size:.85rem}
.cards dd{margin:0}
.cards .big{font-size:1.7rem;font-weight:650;line-height:1.25;font-variant-numeric:tabular-nums}
.bars{display:grid;gap:.9rem;margin:.6rem 0 0}
.bar p{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 1rem;margin:0;max-width:none}
.bar svg{display:block;width:100%;height:16px;margin:.25rem 0}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:1rem}
figure{margin:0}
figure svg{display:block;width:100%;height:auto}
figcaption{font-size:.88rem}
.s-left{fill:var(--tint)}.s-spent,.s-dot{fill:var(--accent)}.s-line{stroke:var(--accent)}
.s-area{fill:var(--tint)}
.s-grid{stroke:var(--line)}.s-text{fill:var(--soft)}
.scroll{overflow-x:auto;margin:.8rem 0}
#gdpr td ul{padding-left:.8rem}
table{border-collapse:collapse;width:100%;font-size:.92rem}
caption{text-align:left;font-weight:600;padding:.2rem 0 .4rem}
th,td{text-align:left;vertical-align:top;padding:.45rem .7rem .45rem 0;border-bottom:1px solid var(--line)}
thead th{color:var(--soft);font-weight:600;font-size:.82rem;border-bottom:2px solid var(--line)}
tbody th{font-weight:600}
td,th{overflow-wrap:break-word;min-width:4rem}
tbody th .soft{font-weight:400}
.span{font-size:.76rem;color:var(--soft)}
ul{margin:.2rem 0;padding-left:1.1rem}
code{font:.88em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
overflow-wrap:anywhere}
.src{display:inline-block;font-size:.76rem;line-height:1.35;padding:.05rem .4rem;border:1px solid var(--line);
border-radius:999px;text-decoration:none;color:var(--soft);margin:.05rem 0;white-space:nowrap}
.long{white-space:normal;border-radius:.6rem}
a.src:hover{border-color:var(--accent);color:var(--accent)}
:target{outline:2px solid var(--accent);outline-offset:2px}
.badge{display:inline-block;padding:.05rem .55rem;border-radius:4px;font-weight:650;font-size:.84rem}
.proven{color:var(--proven);background:var(--proven-bg);border:1px solid var(--proven)}
.tested{color:var(--tested);background:var(--tested-bg);border:1px dashed var(--tested)}
.heuristic{color:var(--heuristic);background:var(--heuristic-bg);border:1px dotted var(--heuristic)}
.warn{color:var(--warn);font-weight:600}
.law,.alert{padding:.6rem .9rem;border-radius:0 6px 6px 0}
.law{border-left:4px solid var(--heuristic);background:var(--heuristic-bg)}
.alert{border-left:4px solid var(--warn);background:var(--warn-bg)}
dl.facts{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.2rem;margin:.6rem 0}
dl.facts dt{color:var(--soft)}
dl.facts dd{margin:0;overflow-wrap:anywhere}
.releases{display:grid;gap:.9rem}
article{border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem;break-inside:avoid}
article h4{margin:0 0 .3rem;font-size:1rem}
article p{margin:.25rem 0}
details{margin:.4rem 0}
summary{cursor:pointer;color:var(--accent)}
footer{padding-bottom:3rem;color:var(--soft);font-size:.9rem}
@media (max-width:44rem){
header,main,footer{padding-left:.8rem;padding-right:.8rem}
header{padding-top:1.4rem}
h1{font-size:1.6rem}
section{padding:1rem .9rem;border-radius:8px}
.cards{grid-template-columns:1fr 1fr;gap:.5rem}
.cards .big{font-size:1.35rem}
thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
table,tbody,tr,th,td,caption{display:block;width:100%}
tbody tr{border-bottom:1px solid var(--line);padding:.5rem 0}
tbody th,tbody td{border:0;padding:.12rem 0;min-width:0}
tbody td::before{content:attr(data-label) ": ";color:var(--soft);font-size:.85rem}
dl.facts{grid-template-columns:1fr;gap:0}
dl.facts dd{margin-bottom:.5rem}
}
@page{size:A4;margin:16mm 14mm 18mm;
@bottom-right{content:counter(page) " / " counter(pages);font:9pt sans-serif;color:#56606e}}
@media print{
:root{--ink:#000;--soft:#444;--line:#bbb;--paper:#fff;--page:#fff;--accent:#0b5c6b;--tint:#e4f0f2;
--proven:#155f35;
--proven-bg:#fff;--tested:#1d4f9c;--tested-bg:#fff;--heuristic:#7a4a00;--heuristic-bg:#fff;--warn:#8c2f1b;
--warn-bg:#fff}
html{font-size:9.5pt}
body{background:#fff;font-size:9.5pt;line-height:1.4}
header,main,footer{max-width:none;padding:0}
section{border:0;border-top:1.5pt solid #0b5c6b;border-radius:0;padding:10pt 0 0;margin:14pt 0 0}
nav,.skip{display:none}
h1{font-size:20pt}h2{font-size:14pt}h2,h3,caption{break-after:avoid}
table{font-size:8pt}tr{break-inside:avoid}thead{display:table-header-group}
.scroll{overflow:visible}
.cards{grid-template-columns:repeat(4,1fr)}
.cards>div,.bar,figure{break-inside:avoid}
summary{display:block;list-style:none}
.curves{grid-template-columns:repeat(3,1fr)}
.src{font-size:6.8pt;padding:0 3pt;white-space:normal}
th,td{padding:3pt 5pt 3pt 0;min-width:0}
tbody th .src,#appendix tbody th{white-space:nowrap}
#gdpr table{font-size:7pt}#gdpr td,#gdpr th{overflow-wrap:anywhere;min-width:34pt}
.law,.alert{break-inside:avoid}.law{break-after:avoid}
thead th{font-size:7.4pt;overflow-wrap:normal}
a{color:inherit;text-decoration:none}
}
"""
