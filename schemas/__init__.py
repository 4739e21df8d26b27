"""What the parts say to each other: records, levels, frames, pages, errors, topic names.

A leaf: imports nothing of ours. A change here is a change of contract and belongs in CHANGELOG.md.
"""
