import { Empty } from "../../shared/states";

export default function ExperimentsView() {
  return (
    <Empty
      title="Experiments"
      actions={
        <a className="button" href="/docs">
          API documentation
        </a>
      }
    >
      Runs whose agents log under one experiment id are not part of this page yet. The API has them.
    </Empty>
  );
}
