"""Looks at the agent's part of a machine: whose files it is to send, and whether it may. Blocks on disks."""

from __future__ import annotations

from agent.listing import ENTRIES_MAX
from agent.roots import Root, Unlisted
from agent.settings import AgentSettings
from cli.doctor.findings import Finding, ok, warn


def agent_files(settings: AgentSettings) -> list[Finding]:
    """A finding for each root; none where there are no roots."""
    missing = {name for name, root in settings.roots.items() if not root.path.is_dir()}
    found = [warn("agent", problem, "make the folder, or mend the root's path") for problem in settings.check_folders()]
    return [*found, *(_root(root) for root in settings.reading_roots() if root.name not in missing)]


def _root(root: Root) -> Finding:
    files, refused, first = 0, 0, ""
    for each in root.walk(entries_max=ENTRIES_MAX):
        if isinstance(each, Unlisted):
            reason: str | None = each.text
        else:
            files += 1
            reason = root.why_not(each.name)
            reason = None if reason is None else f"{root.name}/{each.name}: {reason}"
        if reason is not None:
            refused += 1
            first = first or reason
    text = f"root {root.name}: {files} files in {root.path}"
    if not refused:
        return ok("agent", text)
    do = "look as the agent's account; let it read them, or exclude them (docs/runbooks/agent-files-unreadable.md)"
    return warn("agent", f"{text}, {refused} of which this account cannot look at, such as {first}", do)
