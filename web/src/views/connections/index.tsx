import { Empty } from "../../shared/states";

export default function ConnectionsView() {
  return (
    <Empty
      title="Connections"
      actions={
        <a className="button" href="/docs">
          API documentation
        </a>
      }
    >
      Client and server logs of one connection, side by side are not part of this page yet. The API has them.
    </Empty>
  );
}
