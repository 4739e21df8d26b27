-- Users who come from a login provider (OpenID Connect). They are who the provider says: the pair (issuer, subject), which no
-- other person ever gets; the name is for people. They have no password here, and whoever has one comes from nowhere else.
ALTER TABLE users
    ALTER COLUMN password_hash DROP NOT NULL,
    ADD COLUMN issuer text COLLATE "C",
    ADD COLUMN issuer_subject text COLLATE "C",
    ADD CONSTRAINT users_one_way_in CHECK (
        (password_hash IS NULL) = (issuer IS NOT NULL) AND (issuer IS NULL) = (issuer_subject IS NULL)
    ),
    ADD CONSTRAINT users_issuer UNIQUE (issuer, issuer_subject);
COMMENT ON COLUMN users.issuer IS 'of the login provider, as it calls itself; NULL: a user with a password';
