"""Credential to Principal: who is asking, proven from our own records.

Promise: one extractor for every route (`authenticate`), one refusal for every key that is not valid, no database
touched by a malformed one.  Never: a secret stored, logged or shown twice; an identity taken from anything but the
credential's own record.  Values: `Principal`, `Authenticated`, `AuthFailure`, `KeyRecord`.  Entry points:
`authenticate.Authenticator`, `key_store.KeyStore`, `last_use.LastUse`, `api_keys.mint`.
"""
