"""Text of others on the user's terminal: see runtime/harmless.py."""

from __future__ import annotations

from runtime.harmless import harmless, harmless_json

__all__ = ["harmless", "harmless_json"]
