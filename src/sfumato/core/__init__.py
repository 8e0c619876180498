"""The foundation: policy, events, accounting, ledger, gate, receipts. It knows no room."""
