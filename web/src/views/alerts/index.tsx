import { Empty } from "../../shared/states";

export default function AlertsView() {
  return (
    <Empty
      title="Alerts"
      actions={
        <a className="button" href="/docs">
          API documentation
        </a>
      }
    >
      Rules, what fires, and silences are not part of this page yet: `logfeed alerts` and the API have them.
    </Empty>
  );
}
