import type { ReactNode } from "react";

export interface Tab<T extends string> {
  id: T;
  name: string;
  /** Behind the name. */
  count?: number | undefined;
}

/** Parts of a view that exclude each other; which one is the address's business. */
export function Tabs<T extends string>({
  label,
  tabs,
  current,
  onTab,
  children,
}: {
  label: string;
  tabs: readonly Tab<T>[];
  current: T;
  onTab: (id: T) => void;
  /** At the end of the line. */
  children?: ReactNode;
}) {
  return (
    <div className="tabs-line">
      <nav className="tabs" aria-label={label}>
        {tabs.map(({ id, name, count }) => (
          <button
            key={id}
            type="button"
            className="tab"
            aria-current={id === current ? "page" : undefined}
            onClick={() => onTab(id)}
          >
            {name}
            {count !== undefined && count > 0 && <span className="tab-count">{count.toLocaleString("en")}</span>}
          </button>
        ))}
      </nav>
      {children}
    </div>
  );
}
