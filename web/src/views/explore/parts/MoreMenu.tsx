import { useState } from "react";
import { session } from "../../../api/session";
import { navigate, useAddress } from "../../../router/router";
import { Button } from "../../../shared/Button";
import { Dialog } from "../../../shared/Dialog";
import { Menu, MenuItem, MenuTitle } from "../../../shared/Menu";
import { copy } from "../../../shared/toast";
import type { ExploreState } from "../state";
import { exportAll } from "./exporting";
import { useBookmarks, useSavedViews } from "./personal";

/** Saved views, bookmarks, export, link, help. What the server does not have is not offered. */
export function MoreMenu({
  state,
  onHelp,
  onOpenLog,
}: {
  state: ExploreState;
  onHelp: () => void;
  onOpenLog: (id: string) => void;
}) {
  const { path, search } = useAddress();
  const { views, save, remove } = useSavedViews();
  const { bookmarks } = useBookmarks();
  const [dialog, setDialog] = useState<"" | "save" | "bookmarks">("");
  return (
    <>
      <Menu label="More" button="More">
        {views !== null && (
          <>
            <MenuTitle>Saved views</MenuTitle>
            {views.slice(0, 20).map(({ name, address }) => (
              <MenuItem
                key={name}
                onChoose={() => navigate(address.startsWith("/") && !address.startsWith("//") ? address : "/")}
              >
                {name}
              </MenuItem>
            ))}
            <MenuItem onChoose={() => setDialog("save")}>Save this view …</MenuItem>
          </>
        )}
        {bookmarks !== null && (
          <MenuItem onChoose={() => setDialog("bookmarks")}>Bookmarks ({bookmarks.length})</MenuItem>
        )}
        <MenuTitle>This result</MenuTitle>
        {session.may("export") && (
          <>
            <MenuItem onChoose={() => void exportAll(state, "ndjson")}>Export all as NDJSON</MenuItem>
            <MenuItem onChoose={() => void exportAll(state, "csv")}>Export all as CSV</MenuItem>
          </>
        )}
        <MenuItem onChoose={() => void copy(window.location.href, "the link")}>Copy link</MenuItem>
        <MenuItem onChoose={onHelp}>Searching and keys (?)</MenuItem>
      </Menu>
      {dialog === "save" && (
        <SaveDialog
          names={views?.map(({ name }) => name) ?? []}
          onSave={(name) => {
            save.mutate({ name, address: path + search });
            setDialog("");
          }}
          onRemove={(name) => remove.mutate(name)}
          onClose={() => setDialog("")}
        />
      )}
      {dialog === "bookmarks" && (
        <Dialog title="Bookmarks" onClose={() => setDialog("")}>
          {bookmarks?.length === 0 && <p className="muted">None yet: press m on a row.</p>}
          <ul className="plain-list">
            {bookmarks?.map(({ target_id, note, created_at }) => (
              <li key={target_id}>
                <Button
                  kind="quiet"
                  onClick={() => {
                    setDialog("");
                    onOpenLog(target_id);
                  }}
                >
                  <span className="mono">{target_id}</span> {note}{" "}
                  <span className="muted">{created_at.slice(0, 16)}</span>
                </Button>
              </li>
            ))}
          </ul>
        </Dialog>
      )}
    </>
  );
}

function SaveDialog({
  names,
  onSave,
  onRemove,
  onClose,
}: {
  names: string[];
  onSave: (name: string) => void;
  onRemove: (name: string) => void;
  onClose: () => void;
}) {
  const [name, setName] = useState("");
  return (
    <Dialog title="Saved views" onClose={onClose}>
      <form
        className="save-view"
        onSubmit={(event) => {
          event.preventDefault();
          onSave(name.trim());
        }}
      >
        <label className="field">
          Name
          <input
            className="input"
            value={name}
            required
            maxLength={100}
            onChange={(event) => setName(event.target.value)}
          />
        </label>
        <Button type="submit" kind="primary" disabled={name.trim() === ""}>
          {names.includes(name.trim()) ? "Replace" : "Save"}
        </Button>
      </form>
      <ul className="plain-list">
        {names.map((each) => (
          <li key={each} className="saved-view">
            {each}
            <Button kind="quiet" aria-label={`Remove ${each}`} onClick={() => onRemove(each)}>
              ✕
            </Button>
          </li>
        ))}
      </ul>
    </Dialog>
  );
}
