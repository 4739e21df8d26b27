import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { answerOf, client } from "../../../api/client";
import { asProblem } from "../../../api/problem";
import { Button } from "../../../shared/Button";
import { Dialog } from "../../../shared/Dialog";
import { toast } from "../../../shared/toast";
import { type MatcherText, parseMatchers } from "../engine/matchers";
import { secondsOf } from "../engine/rule";

const TIMES = [
  ["30m", "30 minutes"],
  ["2h", "2 hours"],
  ["8h", "8 hours"],
  ["1d", "a day"],
  ["7d", "a week"],
] as const;

interface Wanted {
  matchers: MatcherText[];
  ends_at: string;
  comment: string;
}

/** text: matchers, one a line. */
export function SilenceDialog({ text, onClose }: { text: string; onClose: () => void }) {
  const [matchers, setMatchers] = useState(text);
  const [lasting, setLasting] = useState<string>("2h");
  const [comment, setComment] = useState("");
  const [problem, setProblem] = useState("");
  const queries = useQueryClient();
  const make = useMutation({
    mutationFn: (body: Wanted) => answerOf(client.POST("/api/v1/alerts/silences", { body })),
    onSuccess: () => {
      toast("Silenced");
      onClose();
      return queries.invalidateQueries({ queryKey: ["alerts"] });
    },
    onError: (error) => setProblem(asProblem(error).detail),
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const read = parseMatchers(matchers);
    if (!read.ok) return setProblem(read.problem);
    setProblem("");
    const ends = new Date(Date.now() + secondsOf(lasting) * 1_000).toISOString();
    make.mutate({ matchers: read.matchers, ends_at: ends, comment: comment.trim() });
  };
  return (
    <Dialog title="Silence alerts" onClose={onClose}>
      <form className="silence-form" onSubmit={submit}>
        <label className="field">
          Alerts with all of these labels, one a line
          <textarea
            className="input mono"
            rows={4}
            required
            maxLength={4_000}
            value={matchers}
            placeholder={"rule=payment-errors\nservice=~pay/.*"}
            onChange={(event) => setMatchers(event.target.value)}
          />
          <small>
            <code>=</code> <code>!=</code>, and patterns over the whole value <code>=~</code> <code>!~</code>. Every
            alert has <code>rule</code>, <code>severity</code> and what its rule groups by.
          </small>
        </label>
        <label className="field">
          For
          <select className="input" value={lasting} onChange={(event) => setLasting(event.target.value)}>
            {TIMES.map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <label className="field">
          Why
          <input
            className="input"
            required
            maxLength={500}
            value={comment}
            placeholder="known, being mended"
            onChange={(event) => setComment(event.target.value)}
          />
        </label>
        <p className="field-problem" role="alert">
          {problem}
        </p>
        <div className="row-actions dialog-actions">
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" kind="primary" disabled={make.isPending}>
            Silence
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
