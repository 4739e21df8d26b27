/** A rule as a form or as YAML, tried on the past before it is saved. A chunk of its own, with the YAML parser. */
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useEffect, useRef, useState } from "react";
import { type ApiProblem, asProblem } from "../../../api/problem";
import { Button } from "../../../shared/Button";
import { Empty } from "../../../shared/states";
import { copy, toast } from "../../../shared/toast";
import { newRule, type RuleDocument, sentence } from "../engine/rule";
import { fromYaml, type ParsedRule, toYaml } from "../engine/yaml";
import { createRule, replaceRule, type StoredRule } from "../queries";
import type { AlertsState, UpdateAlerts } from "../state";
import { RuleForm } from "./RuleForm";
import { TrialPanel } from "./TrialPanel";

const NEW = "+";

export default function RuleEditor({
  rules,
  state,
  update,
}: {
  rules: StoredRule[];
  state: AlertsState;
  update: UpdateAlerts;
}) {
  const stored = rules.find((each) => each.rule.name === state.edit);
  const isNew = state.edit === NEW;
  const [draft, setDraft] = useState<RuleDocument>(() => (stored?.rule as RuleDocument | undefined) ?? newRule());
  /** What is written in the text area; null: nothing there that the draft does not say. */
  const [text, setText] = useState<string | null>(null);
  const [problem, setProblem] = useState<ApiProblem | null>(null);
  const [mistake, setMistake] = useState("");
  const queries = useQueryClient();
  const close = () => update({ edit: "", form: "form", since: "-1d" }, { replace: true });
  const hasChanged = useRef(false);

  useEffect(() => {
    const ask = (event: BeforeUnloadEvent) => {
      if (hasChanged.current) event.preventDefault();
    };
    window.addEventListener("beforeunload", ask);
    return () => window.removeEventListener("beforeunload", ask);
  }, []);

  const save = useMutation({
    mutationFn: (document: RuleDocument) => (isNew ? createRule(document) : replaceRule(state.edit, document)),
    onSuccess: async (_, document) => {
      hasChanged.current = false;
      await queries.invalidateQueries({ queryKey: ["alerts"] });
      toast(`Rule ${document.name} is saved`);
      update({ edit: "", form: "form", since: "-1d", tab: "rules", rule: document.name ?? "", alert: "", state: "" });
    },
    onError: (error) => setProblem(asProblem(error)),
  });

  /** The draft as it is written now. */
  const read = (): ParsedRule => (text === null ? { ok: true, document: draft } : fromYaml(text));
  const readOrTell = (): RuleDocument | null => {
    const found = read();
    setProblem(null);
    setMistake(found.ok ? "" : found.problem);
    return found.ok ? found.document : null;
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const document = readOrTell();
    if (document !== null) save.mutate(document);
  };
  const show = (form: AlertsState["form"]) => {
    if (form === state.form) return;
    if (form === "form") {
      const document = readOrTell();
      if (document === null) return;
      setDraft(document);
      setText(null);
    }
    update({ form }, { replace: true });
  };

  if (!isNew && stored === undefined) {
    return (
      <Empty title={`There is no rule ${state.edit}`} actions={<Button onClick={close}>Back to alerts</Button>}>
        It was removed meanwhile, or it is not yours.
      </Empty>
    );
  }
  const isOfFile = stored?.owner === "file";
  const shown = read();
  return (
    <form className="page editor" onSubmit={submit} noValidate>
      <div className="page-head">
        <h1>{isNew ? "New rule" : `Rule ${state.edit}`}</h1>
        <fieldset className="segmented" aria-label="Written as">
          <Button kind="quiet" aria-pressed={state.form === "form"} onClick={() => show("form")}>
            Form
          </Button>
          <Button kind="quiet" aria-pressed={state.form === "yaml"} onClick={() => show("yaml")}>
            YAML
          </Button>
        </fieldset>
        <span className="spread" />
        <Button onClick={close}>{isOfFile ? "Back" : "Cancel"}</Button>
        {isOfFile ? (
          <Button onClick={() => shown.ok && void copy(toYaml(shown.document), "the rule as YAML")}>Copy YAML</Button>
        ) : (
          <Button type="submit" kind="primary" disabled={save.isPending}>
            Save
          </Button>
        )}
      </div>
      {isOfFile && (
        <p className="note">
          This rule stands in a file and is changed there. Changes here can be tried and copied, not saved.
        </p>
      )}
      {!isNew && !isOfFile && (
        <p className="muted">
          Another query, window, condition or grouping begins anew: what fires is resolved. You become the rule’s owner.
        </p>
      )}
      <Mistakes problem={problem} mistake={mistake} />
      <div className="editor-columns">
        <section className="card" aria-label="The rule">
          {state.form === "form" ? (
            <RuleForm
              document={draft}
              problems={problem?.fields ?? []}
              isNamed={!isNew}
              onChange={(document) => {
                hasChanged.current = true;
                setDraft(document);
              }}
            />
          ) : (
            <label className="field">
              As it stands in a file of rules
              <textarea
                className="input mono editor-text"
                spellCheck={false}
                aria-invalid={mistake !== ""}
                value={text ?? toYaml(draft)}
                onChange={(event) => {
                  hasChanged.current = true;
                  setText(event.target.value);
                }}
              />
            </label>
          )}
          {shown.ok && <p className="editor-sentence muted">Fires on {sentence(shown.document)}.</p>}
        </section>
        <TrialPanel
          since={state.since}
          onSince={(since) => update({ since }, { replace: true })}
          read={readOrTell}
          onProblem={setProblem}
        />
      </div>
    </form>
  );
}

function Mistakes({ problem, mistake }: { problem: ApiProblem | null; mistake: string }) {
  if (problem === null && mistake === "") return null;
  const fields = problem?.fields ?? [];
  return (
    <div className="note" data-tone="bad" role="alert">
      {mistake !== "" && <p>This is no YAML of a rule: {mistake}</p>}
      {problem !== null && fields.length === 0 && (
        <p>
          <strong>{problem.title}.</strong> {problem.detail}
        </p>
      )}
      {fields.length > 0 && (
        <ul>
          {fields.map(({ field, message }) => (
            <li key={field + message}>
              {field !== "" && <code>{field}</code>} {message}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
