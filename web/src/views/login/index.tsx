import { useQuery } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { answerOf, client } from "../../api/client";
import { asProblem } from "../../api/problem";
import { session } from "../../api/session";
import { placeToReturn } from "../../app/returning";
import { useAddress } from "../../router/router";
import { Button } from "../../shared/Button";
import "./login.css";

type Way = "password" | "key";

/** Name and password, the login provider where there is one, or an API key for as long as the page is open. */
export default function LoginView() {
  const [way, setWay] = useState<Way>("password");
  const [problem, setProblem] = useState("");
  const [isBusy, setIsBusy] = useState(false);
  const { search } = useAddress();
  const offer = useQuery({
    queryKey: ["oidc"],
    queryFn: ({ signal }) => answerOf(client.GET("/api/v1/auth/oidc", { signal })),
    staleTime: Number.POSITIVE_INFINITY,
  });

  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const given = new FormData(event.currentTarget);
    const value = (name: string) => String(given.get(name) ?? "").trim();
    setIsBusy(true);
    setProblem("");
    try {
      if (way === "password") await session.login(value("name"), String(given.get("password") ?? ""));
      else await session.enterKey(value("key"));
    } catch (error) {
      setProblem(asProblem(error).detail);
      setIsBusy(false);
    }
  };

  const providerPath = `/api/v1/auth/oidc/login?${new URLSearchParams({ return_to: placeToReturn(search) })}`;
  return (
    <main className="login">
      <form className="login-card" onSubmit={submit}>
        <h1>Log in to Logfeed</h1>
        {offer.data?.offered && (
          <a className="button" href={providerPath}>
            {offer.data.label}
          </a>
        )}
        {way === "password" ? (
          <>
            <label className="field">
              Name
              <input className="input" name="name" autoComplete="username" required maxLength={200} />
            </label>
            <label className="field">
              Password
              <input
                className="input"
                name="password"
                type="password"
                autoComplete="current-password"
                required
                maxLength={4096}
              />
            </label>
          </>
        ) : (
          <label className="field">
            API key
            <input className="input mono" name="key" type="password" autoComplete="off" required maxLength={200} />
          </label>
        )}
        <p className="login-problem" role="alert">
          {problem}
        </p>
        <Button type="submit" kind="primary" disabled={isBusy}>
          {isBusy ? "Logging in …" : "Log in"}
        </Button>
        <Button
          kind="quiet"
          onClick={() => {
            setWay(way === "password" ? "key" : "password");
            setProblem("");
          }}
        >
          {way === "password" ? "Use an API key instead" : "Use name and password instead"}
        </Button>
        <p className="muted login-hint">
          {way === "password" ? (
            <>
              No account yet? Whoever runs Logfeed makes one: <code>logfeed users create</code>
            </>
          ) : (
            <>
              The key is kept in this tab alone and gone with it. After <code>make up</code> it is in{" "}
              <code>logfeed-data/keys/admin</code>
            </>
          )}
        </p>
      </form>
    </main>
  );
}
