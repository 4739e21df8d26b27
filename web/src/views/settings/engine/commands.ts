/** The commands that give what a principal lacks, or change what it has. Pure. */

/** As a shell takes it, in single quotes where it must. */
export function shellWord(text: string): string {
  return /^[A-Za-z0-9._/:@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

export interface Command {
  what: string;
  line: string;
}

/** What an administrator does about users and keys, on the server. subject: `user:7`, `key:abc`. */
export function commandsOf(subject: string, name: string): Command[] {
  const [kind, id = ""] = subject.split(":");
  const own: Command[] =
    kind === "user"
      ? [
          { what: "Another password for you", line: `logfeed users passwd ${shellWord(name)}` },
          { what: "Nobody logs in as you any more", line: `logfeed users disable ${shellWord(name)}` },
        ]
      : kind === "key"
        ? [{ what: "Revoke this key", line: `logfeed keys revoke ${shellWord(id)}` }]
        : [];
  return [
    { what: "Who there is", line: "logfeed users list" },
    {
      what: "A user who reads and tails some services",
      line: "logfeed users create NAME --read 'pay/*' --tail 'pay/*'",
    },
    ...own,
    { what: "Keys", line: "logfeed keys list" },
    { what: "A key for a service that sends", line: "logfeed keys create shop --write shop" },
  ];
}
