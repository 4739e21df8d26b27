import { Dialog } from "../../../shared/Dialog";

const KEYS: [string, string][] = [
  ["/", "search"],
  ["j k", "next, previous row"],
  ["g G", "newest, oldest"],
  ["Enter", "details"],
  ["Esc", "close details"],
  ["x", "surrounding lines"],
  ["e w", "next error, next warning"],
  ["m", "bookmark"],
  ["Space", "pause, go on (live)"],
  ["t", "time"],
  ["?", "this list"],
];

const SEARCHES: [string, string][] = [
  ["timeout refused", "both words"],
  ['"connection refused"', "one after the other"],
  ["timeout OR refused", "either"],
  ["timeout -retry", "not the second"],
  ["/took \\d{4,} ?ms/i", "a regular expression"],
  ["level>=warn service:pay*", "levels, services"],
  ["correlation:4bf92f35", "one request's story"],
  ["http.status:500 http.ms>=200", "metadata"],
];

export function Help({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Searching and keys" onClose={onClose}>
      <dl className="help">
        {SEARCHES.map(([text, meaning]) => (
          <div key={text}>
            <dt>
              <code>{text}</code>
            </dt>
            <dd>{meaning}</dd>
          </div>
        ))}
      </dl>
      <dl className="help">
        {KEYS.map(([keys, meaning]) => (
          <div key={keys}>
            <dt>
              {keys.split(" ").map((each) => (
                <kbd key={each}>{each}</kbd>
              ))}
            </dt>
            <dd>{meaning}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
