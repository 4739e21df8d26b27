import { type ReactNode, useState } from "react";
import { Button } from "../../../shared/Button";
import { Popover } from "./Popover";

const SHOWN_MAX = 200;

/** Some of many: a list with ticks, and a field that narrows it where it is long. Nothing ticked: all. */
export function Choice<T extends string>({
  label,
  all,
  options,
  chosen,
  onChange,
  chosenMax = Number.POSITIVE_INFINITY,
  draw = (option) => option,
}: {
  label: string;
  /** What nothing ticked is called. */
  all: string;
  options: readonly T[];
  chosen: readonly T[];
  onChange: (chosen: T[]) => void;
  /** Most at once; then the others cannot be ticked. */
  chosenMax?: number;
  draw?: (option: T) => ReactNode;
}) {
  const [isOpen, setIsOpen] = useState(false);
  const [typed, setTyped] = useState("");
  const gone = chosen.filter((each) => !options.includes(each));
  const shown = [...gone, ...options].filter((each) => each.toLowerCase().includes(typed.toLowerCase()));
  const name = chosen.length === 0 ? all : chosen.length === 1 ? chosen[0] : `${chosen.length} ${label.toLowerCase()}`;
  return (
    <Popover
      label={`${label}: ${name}`}
      button={<span className="choice-name">{name}</span>}
      isOpen={isOpen}
      onOpen={setIsOpen}
    >
      {options.length > 10 && (
        <input
          className="input choice-filter"
          aria-label={`Find ${label.toLowerCase()}`}
          placeholder="Find …"
          value={typed}
          // biome-ignore lint/a11y/noAutofocus: the panel was opened to choose here
          autoFocus
          onChange={(event) => setTyped(event.target.value)}
        />
      )}
      <div className="choice-list" role="group" aria-label={label}>
        {shown.slice(0, SHOWN_MAX).map((option) => (
          <label key={option} className="menu-item">
            <input
              type="checkbox"
              checked={chosen.includes(option)}
              disabled={chosen.length >= chosenMax && !chosen.includes(option)}
              onChange={(event) =>
                onChange(event.target.checked ? [...chosen, option] : chosen.filter((each) => each !== option))
              }
            />
            {draw(option)}
          </label>
        ))}
        {shown.length > SHOWN_MAX && <p className="menu-title">… {shown.length - SHOWN_MAX} more</p>}
        {shown.length === 0 && <p className="menu-title">There is none</p>}
      </div>
      {chosen.length > 0 && (
        <Button kind="quiet" onClick={() => onChange([])}>
          {all}
        </Button>
      )}
    </Popover>
  );
}
