"""Which patterns logs have, and how many lines each: the role `mine`, which follows the broker.

    broker ── follow ──▶ tally (pure: miner, counts) ──▶ templates, counts, positions: one transaction (store/patterns)

One process at a time leads; others stand by. docs/patterns.md is the user's side.
"""
