-- Where the frame of an idempotency key lies in the broker: who follows the broker tells the frame that was stored from its
-- copies (live/keys.py). Null for what older programs have stored.
ALTER TABLE stored_keys ADD COLUMN partition integer, ADD COLUMN "offset" bigint;
