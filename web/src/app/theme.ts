/** Light, dark, or as the system is; kept in this browser. Also which zone times are shown in. */
import { useSyncExternalStore } from "react";

export const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];
export const ZONES = ["local", "UTC"] as const;
export type Zone = (typeof ZONES)[number];

/** One choice, kept in localStorage where the browser has it. */
class Kept<T extends string> {
  private value: T;
  private readonly listeners = new Set<() => void>();
  private readonly name: string;
  private readonly apply: (value: T) => void;

  constructor(name: string, options: readonly T[], fallback: T, apply: (value: T) => void = () => undefined) {
    this.name = name;
    this.apply = apply;
    let kept: string | null = null;
    try {
      kept = globalThis.localStorage?.getItem(name) ?? null;
    } catch {
      // Storage is switched off: the choice holds for this page.
    }
    this.value = options.find((option) => option === kept) ?? fallback;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly get = (): T => this.value;

  start(): void {
    this.apply(this.value);
  }

  set(value: T): void {
    this.value = value;
    this.apply(value);
    try {
      globalThis.localStorage?.setItem(this.name, value);
    } catch {
      // See above.
    }
    for (const listener of this.listeners) listener();
  }
}

export const theme = new Kept<Theme>("logfeed-theme", THEMES, "system", (value) => {
  document.documentElement.dataset.theme = value;
});
export const zone = new Kept<Zone>("logfeed-zone", ZONES, "local");

export function useTheme(): Theme {
  return useSyncExternalStore(theme.subscribe, theme.get);
}

export function useZone(): Zone {
  return useSyncExternalStore(zone.subscribe, zone.get);
}
