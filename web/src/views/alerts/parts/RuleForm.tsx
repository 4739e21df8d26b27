import { type ReactNode, useId, useState } from "react";
import type { FieldProblem } from "../../../api/problem";
import {
  CONDITIONS,
  conditionFor,
  conditionOf,
  labelsOf,
  labelsText,
  type RuleDocument,
  SEVERITIES,
  withField,
  words,
} from "../engine/rule";

/** The fields of a rule that most rules have; what it does not know stays as it is. */
export function RuleForm({
  document,
  problems,
  isNamed,
  onChange,
}: {
  document: RuleDocument;
  problems: FieldProblem[];
  /** It exists: its name stays. */
  isNamed: boolean;
  onChange: (document: RuleDocument) => void;
}) {
  const set = (name: string, value: unknown) => onChange(withField(document, name, value));
  const problemOf = (name: string) =>
    problems.find(({ field }) => field === name || field.startsWith(`${name}.`))?.message;
  const [kind, values] = conditionOf(document);
  const text = (name: string) => String(document[name] ?? "");
  return (
    <div className="form-grid">
      <Field label="Name" hint="lower case letters, digits, . _ -" problem={problemOf("name")}>
        {(props) => (
          <input
            className="input mono"
            {...props}
            value={text("name")}
            disabled={isNamed}
            maxLength={100}
            placeholder="payment-errors"
            onChange={(event) => set("name", event.target.value)}
          />
        )}
      </Field>
      <Field label="Severity" problem={problemOf("severity")}>
        {(props) => (
          <select
            className="input"
            {...props}
            value={document.severity ?? "warning"}
            onChange={(event) => set("severity", event.target.value)}
          >
            {SEVERITIES.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        )}
      </Field>
      <Field label="Which logs" hint="the query language of Explore; empty: all" problem={problemOf("query")} isWide>
        {(props) => (
          <input
            className="input mono"
            {...props}
            value={text("query")}
            maxLength={4_000}
            placeholder="service:pay/* level>=error"
            onChange={(event) => set("query", event.target.value)}
          />
        )}
      </Field>
      <Field label="Fires on" problem={problemOf("condition")}>
        {(props) => (
          <select
            className="input"
            {...props}
            value={kind?.name ?? ""}
            onChange={(event) => set("condition", conditionFor(event.target.value))}
          >
            {kind === undefined && <option value="">choose</option>}
            {CONDITIONS.map(({ name, title }) => (
              <option key={name} value={name}>
                {title}
              </option>
            ))}
          </select>
        )}
      </Field>
      {kind?.params.map((param) => (
        <Field
          key={`${kind.name}.${param.name}`}
          label={param.label}
          problem={problemOf(`condition.${kind.name}.${param.name}`)}
        >
          {(props) => (
            <Draft
              {...props}
              type={param.kind}
              value={String(values[param.name] ?? "")}
              onText={(written) => {
                const value = param.kind === "number" && written !== "" ? Number(written) : written;
                set("condition", { [kind.name]: withField(values, param.name, value) });
              }}
            />
          )}
        </Field>
      ))}
      <Field label="In a window of" hint="5m, 1h30m, 1d" problem={problemOf("window")}>
        {(props) => (
          <input
            className="input"
            {...props}
            value={text("window")}
            placeholder="5m"
            onChange={(event) => set("window", event.target.value)}
          />
        )}
      </Field>
      <Field label="Looked at every" hint="empty: a tenth of the window" problem={problemOf("every")}>
        {(props) => (
          <input
            className="input"
            {...props}
            value={text("every")}
            placeholder="30s"
            onChange={(event) => set("every", event.target.value)}
          />
        )}
      </Field>
      <Field label="Must hold for" hint="empty: fires at once" problem={problemOf("for")}>
        {(props) => (
          <input
            className="input"
            {...props}
            value={text("for")}
            placeholder="0s"
            onChange={(event) => set("for", event.target.value)}
          />
        )}
      </Field>
      <Field label="Each by itself" hint="fields: service, user.id" problem={problemOf("group_by")}>
        {(props) => (
          <Draft
            {...props}
            value={(document.group_by ?? []).join(", ")}
            placeholder="service"
            onText={(written) => set("group_by", words(written))}
          />
        )}
      </Field>
      <Field label="Told to" hint="channels; empty: the default ones" problem={problemOf("channels")}>
        {(props) => (
          <Draft
            {...props}
            value={(document.channels ?? []).join(", ")}
            placeholder="ops"
            onText={(written) => set("channels", words(written))}
          />
        )}
      </Field>
      <Field label="Labels" hint="team=payments, area=eu" problem={problemOf("labels")}>
        {(props) => (
          <Draft
            {...props}
            value={labelsText(document.labels)}
            onText={(written) => set("labels", labelsOf(written))}
          />
        )}
      </Field>
      <Field label="Summary" hint="a sentence for whoever is woken" problem={problemOf("summary")} isWide>
        {(props) => (
          <input
            className="input"
            {...props}
            value={text("summary")}
            maxLength={500}
            onChange={(event) => set("summary", event.target.value)}
          />
        )}
      </Field>
      <Field label="Runbook" hint="an address" problem={problemOf("runbook")} isWide>
        {(props) => (
          <input
            className="input"
            {...props}
            type="url"
            value={text("runbook")}
            maxLength={2_000}
            onChange={(event) => set("runbook", event.target.value)}
          />
        )}
      </Field>
    </div>
  );
}

interface FieldProps {
  id: string;
  "aria-invalid": boolean;
  "aria-describedby": string;
}

function Field({
  label,
  hint = "",
  problem,
  isWide = false,
  children,
}: {
  label: string;
  hint?: string;
  problem?: string | undefined;
  isWide?: boolean;
  children: (props: FieldProps) => ReactNode;
}) {
  const id = useId();
  return (
    <div className="field" data-wide={isWide}>
      <label htmlFor={id}>{label}</label>
      {children({ id, "aria-invalid": problem !== undefined, "aria-describedby": `${id}-hint` })}
      <small id={`${id}-hint`}>{problem === undefined ? hint : <span className="field-problem">{problem}</span>}</small>
    </div>
  );
}

/** A field whose text is not its value: while it is written in, it shows what is written. */
function Draft({
  value,
  onText,
  type = "text",
  ...rest
}: FieldProps & { value: string; onText: (text: string) => void; type?: "text" | "number"; placeholder?: string }) {
  const [written, setWritten] = useState<string | null>(null);
  return (
    <input
      className="input"
      {...rest}
      type={type}
      step="any"
      value={written ?? value}
      onChange={(event) => {
        setWritten(event.target.value);
        onText(event.target.value);
      }}
      onBlur={() => setWritten(null)}
    />
  );
}
