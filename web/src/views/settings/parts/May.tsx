import { ALL_PERMISSIONS } from "../engine/permissions";

/** What a key or user may, a label for each permission. */
export function May({ permissions }: { permissions: Record<string, string[]> }) {
  const held = ALL_PERMISSIONS.filter(({ name }) => (permissions[name] ?? []).length > 0);
  if (held.length === 0) return <span className="muted">nothing</span>;
  return (
    <span className="labels">
      {held.map(({ name }) => (
        <span className="label" key={name}>
          {name}: {(permissions[name] ?? []).join(", ")}
        </span>
      ))}
    </span>
  );
}
