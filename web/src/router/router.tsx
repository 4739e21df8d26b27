/**
 * The address is the state: `navigate` and `useSearch` write it, back, forward and reload restore it.
 *
 * A small store over the History API. Views never keep in memory what their address says.
 */
import { type ComponentProps, type MouseEvent, useCallback, useMemo, useSyncExternalStore } from "react";
import { formatSearch, parseSearch, type Spec, type Values } from "./search";

export interface Address {
  path: string;
  /** With its `?`, or empty. */
  search: string;
}

const listeners = new Set<() => void>();
let current = read();

function read(): Address {
  if (typeof window === "undefined") return { path: "/", search: "" };
  return { path: window.location.pathname, search: window.location.search };
}

function changed(): void {
  current = read();
  for (const listener of listeners) listener();
}

if (typeof window !== "undefined") window.addEventListener("popstate", changed);

export interface NavigateOptions {
  /** Take the place of the present entry of the history: for what nobody wants to go back to. */
  replace?: boolean;
}

/** Go to a path of this page, `?…` included. */
export function navigate(to: string, options: NavigateOptions = {}): void {
  if (to === current.path + current.search) return;
  if (options.replace) window.history.replaceState(null, "", to);
  else window.history.pushState(null, "", to);
  changed();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function address(): Address {
  return current;
}

export function useAddress(): Address {
  return useSyncExternalStore(subscribe, address);
}

export type UpdateSearch<S extends Spec> = (patch: Partial<Values<S>>, options?: NavigateOptions) => void;

/** The view's part of the address, and how to change it. spec: one constant for the view's life. */
export function useSearch<S extends Spec>(spec: S): [Values<S>, UpdateSearch<S>] {
  const { search } = useAddress();
  const values = useMemo(() => parseSearch(spec, search), [spec, search]);
  const update = useCallback<UpdateSearch<S>>(
    (patch, options) => {
      const { path, search: now } = current;
      navigate(path + formatSearch(spec, { ...parseSearch(spec, now), ...patch }), options);
    },
    [spec],
  );
  return [values, update];
}

/** The part of the path behind a prefix: `rest("/experiments")` of `/experiments/17` is `17`; empty where there is none. */
export function usePathRest(prefix: string): string {
  const { path } = useAddress();
  const rest = path.startsWith(`${prefix}/`) ? path.slice(prefix.length + 1) : "";
  try {
    return decodeURIComponent(rest);
  } catch {
    return rest;
  }
}

/** A link that stays in the page; with Ctrl, Shift or the middle button it is the browser's. */
export function Link({ href, onClick, ...rest }: ComponentProps<"a"> & { href: string }) {
  const follow = (event: MouseEvent<HTMLAnchorElement>) => {
    onClick?.(event);
    if (
      event.defaultPrevented ||
      event.button !== 0 ||
      event.metaKey ||
      event.ctrlKey ||
      event.shiftKey ||
      event.altKey
    )
      return;
    event.preventDefault();
    navigate(href);
  };
  return <a href={href} onClick={follow} {...rest} />;
}
