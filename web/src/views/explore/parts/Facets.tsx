/** Counts of the newest matching logs by service, level and metadata. A click includes, a click on "not" excludes. */
import { useQuery } from "@tanstack/react-query";
import { getIfThere } from "../../../api/client";
import { asProblem } from "../../../api/problem";
import { Button } from "../../../shared/Button";
import { LEVELS, Level, type LevelName } from "../../../shared/Level";
import { metadataTerm } from "../engine/query";
import { type ExploreState, questionOf } from "../state";
import { Choice } from "./Choice";
import type { OnTerm } from "./JsonTree";

/** The server counts 20 at a time: level and service are two of them. */
const FIELDS_MAX = 18;

export interface FacetsAnswer {
  facets: { field: string; values: { value: string; count: number }[]; others: number }[];
  counted: number;
  counted_from: string | null;
  is_estimated: boolean;
}

export interface FacetActions {
  onService: (name: string) => void;
  onLevel: (level: LevelName) => void;
  onTerm: OnTerm;
  onFields: (names: string[]) => void;
}

export function useFacets(state: ExploreState, isEnabled: boolean) {
  const asked = questionOf(state);
  if (state.facet.length > 0) {
    const fields = ["level", "service_name", ...state.facet.map((name) => `metadata.${name}`)];
    for (const field of fields) asked.append("field", field);
  }
  const question = asked.toString();
  return useQuery({
    queryKey: ["facets", question],
    queryFn: ({ signal }) => getIfThere<FacetsAnswer>("/api/v1/facets", new URLSearchParams(question), signal),
    enabled: isEnabled,
    placeholderData: (before) => before,
  });
}

export function Facets({
  state,
  mayAsk,
  services,
  fields,
  actions,
}: {
  state: ExploreState;
  /** Whether it is time to count; until then the counts of before stay. */
  mayAsk: boolean;
  /** All that may be read, for a server that counts no facets. */
  services: readonly string[];
  /** Metadata fields that there are. */
  fields: readonly string[];
  actions: FacetActions;
}) {
  const { data, error } = useFacets(state, mayAsk);
  // A question with a mistake in it is told once, under the mistake.
  const problem = error === null ? null : asProblem(error);
  const facet = (field: string) => data?.facets.find((each) => each.field === field);
  const levels = facet("level");
  const byService = facet("service_name");
  // What was chosen stays in sight, also where nothing of it was found.
  const counted = byService?.values ?? services.slice(0, 30).map((value) => ({ value, count: Number.NaN }));
  const chosen = state.service.filter((name) => !counted.some(({ value }) => value === name));
  const others = data?.facets.filter((each) => each.field.startsWith("metadata.")) ?? [];
  return (
    <aside className="facets" aria-label="Facets">
      <FacetGroup name="Level">
        {[...LEVELS].reverse().map((level) => (
          <FacetValue
            key={level}
            label={<Level level={level} />}
            name={level}
            count={
              levels?.values.find(({ value }) => value === level)?.count ?? (levels === undefined ? Number.NaN : 0)
            }
            isOn={state.level.includes(level)}
            onChoose={() => actions.onLevel(level)}
          />
        ))}
      </FacetGroup>
      <FacetGroup name="Service">
        {[...chosen.map((value) => ({ value, count: Number.NaN })), ...counted].map(({ value, count }) => (
          <FacetValue
            key={value}
            label={value}
            name={value}
            count={count}
            isOn={state.service.includes(value)}
            onChoose={() => actions.onService(value)}
          />
        ))}
        <Others count={byService?.others} />
      </FacetGroup>
      {others.map(({ field, values, others: rest }) => (
        <FacetGroup key={field} name={field.slice("metadata.".length)}>
          {values.map(({ value, count }) => {
            const term = metadataTerm(field.slice("metadata.".length).split("."), value);
            return (
              <FacetValue
                key={value}
                label={value}
                name={value}
                count={count}
                onChoose={term === null ? undefined : () => actions.onTerm(term, false)}
                onExclude={term === null ? undefined : () => actions.onTerm(term, true)}
              />
            );
          })}
          <Others count={rest} />
        </FacetGroup>
      ))}
      {data != null && (
        <div className="facet-fields">
          <Choice
            label="Counted fields"
            all="Commonest fields"
            options={fields}
            chosen={state.facet}
            chosenMax={FIELDS_MAX}
            onChange={actions.onFields}
          />
        </div>
      )}
      {problem !== null && problem.status !== 422 && (
        <p className="muted">Counts cannot be had now: {problem.detail}</p>
      )}
      {data != null && data.counted_from !== null && (
        <p className="muted">Counted over the newest {data.counted.toLocaleString("en")}</p>
      )}
    </aside>
  );
}

function FacetGroup({ name, children }: { name: string; children: React.ReactNode }) {
  return (
    <section className="facet">
      <h2>{name}</h2>
      <ul>{children}</ul>
    </section>
  );
}

function FacetValue({
  label,
  name,
  count,
  isOn,
  onChoose,
  onExclude,
}: {
  label: React.ReactNode;
  name: string;
  count: number;
  isOn?: boolean;
  onChoose?: (() => void) | undefined;
  onExclude?: (() => void) | undefined;
}) {
  return (
    <li className="facet-value">
      <button
        type="button"
        className="facet-choose"
        aria-pressed={isOn}
        onClick={onChoose}
        disabled={onChoose === undefined}
        title={name}
      >
        <span className="facet-check" aria-hidden="true">
          {isOn ? "✓" : ""}
        </span>
        <span className="facet-label">{label}</span>
        {!Number.isNaN(count) && <span className="muted">{count.toLocaleString("en")}</span>}
      </button>
      {onExclude !== undefined && (
        <Button kind="quiet" aria-label={`Not ${name}`} onClick={onExclude}>
          −
        </Button>
      )}
    </li>
  );
}

function Others({ count }: { count: number | undefined }) {
  return count === undefined || count === 0 ? null : (
    <li className="muted facet-others">others {count.toLocaleString("en")}</li>
  );
}
