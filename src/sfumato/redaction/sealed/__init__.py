"""Sealed originals: what a redaction hides, kept encrypted, so that a lawful restore is possible.

areas.py     whose pixels are whose; pack.py packs them without loss
take.py      what a frame or page is about to hide; sealer.py seals it, part by part
sidecar.py   the file that comes of it
room.py      where the files lie in a project, and how they end
restore.py   the way back, through the gate; put_back.py writes it
"""
