import { type ReactNode, useEffect, useRef } from "react";
import { Button } from "../../../shared/Button";

/** A button with a panel below it, open or not as the caller says. Escape and a click elsewhere close it. */
export function Popover({
  label,
  button,
  isOpen,
  onOpen,
  align = "start",
  children,
}: {
  label: string;
  button: ReactNode;
  isOpen: boolean;
  onOpen: (isOpen: boolean) => void;
  align?: "start" | "end";
  children: ReactNode;
}) {
  const whole = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!isOpen) return;
    const outside = (event: PointerEvent) => {
      if (event.target instanceof Node && !whole.current?.contains(event.target)) onOpen(false);
    };
    document.addEventListener("pointerdown", outside);
    return () => document.removeEventListener("pointerdown", outside);
  }, [isOpen, onOpen]);
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: Escape from anything inside
    <div
      className="menu"
      data-align={align}
      ref={whole}
      onKeyDown={(event) => {
        if (event.key !== "Escape" || !isOpen) return;
        event.stopPropagation();
        onOpen(false);
        whole.current?.querySelector<HTMLElement>(".button")?.focus();
      }}
    >
      <Button aria-expanded={isOpen} aria-label={label} aria-haspopup="dialog" onClick={() => onOpen(!isOpen)}>
        {button}
        <span aria-hidden="true">▾</span>
      </Button>
      {isOpen && (
        <div className="menu-list popover" role="dialog" aria-label={label}>
          {children}
        </div>
      )}
    </div>
  );
}
