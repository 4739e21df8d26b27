"""Logging in through somebody else's provider: OpenID Connect Core 1.0, authorization code flow with PKCE (RFC 7636).

`attempts.py`, `id_tokens.py` and `rights.py` decide and are pure; `provider.py` asks the provider; `users.py` keeps who came;
`login.py` puts them together. Nothing of a provider's is kept but who somebody is there and what their groups mean here.
"""
