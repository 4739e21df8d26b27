import type { ComponentProps } from "react";

export type ButtonKind = "plain" | "primary" | "quiet";

/** kind: one `primary` in a view at most; `quiet` among many. A button that holds a state has `aria-pressed`. */
export function Button({ kind = "plain", className = "", ...rest }: ComponentProps<"button"> & { kind?: ButtonKind }) {
  return <button type="button" className={`button ${className}`} data-kind={kind} {...rest} />;
}
