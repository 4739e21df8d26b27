import { Empty } from "../../shared/states";

export default function StatusView() {
  return (
    <Empty
      title="Status"
      actions={
        <a className="button" href="/docs">
          API documentation
        </a>
      }
    >
      Consumers, throughput, the ledger, tiers are not part of this page yet. The API has them.
    </Empty>
  );
}
