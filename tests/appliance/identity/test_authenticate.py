"""Who is let in, and what everybody else is told."""

from __future__ import annotations

import hmac
import random
import string
from dataclasses import fields, replace

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from identity_keys import HOUR_US, NOW_US, PEPPER, bearer, make_record

from appliance.identity.api_keys import Pepper, mint, secret_digest
from appliance.identity.authenticate import Authenticated, Authenticator, AuthFailure
from appliance.identity.principal import Principal

DAY_US = 86_400_000_000


def ignored(_record, _day) -> None:
    """Note no use."""


@pytest.fixture
def statements(store) -> list[str]:
    """Every SQL statement from now on."""
    seen: list[str] = []
    sa.event.listen(store._file._engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    return seen


def test_a_proven_key_gives_the_principal_of_its_record(desk, minted):
    """Every field comes from the record."""
    key = minted(owner="bot", kind="Service", tenant="lab", roles=("auditor", "operator"), clearance=3)
    expected = Principal("bot", "Service", "lab", ("auditor", "operator"), 3, key.key_id)
    for header in (
        bearer(key),
        (b"Authorization", b"bearer   " + key.unsafe_text.encode() + b" "),
        (b"x-api-key", key.unsafe_text.encode()),
        (b"X-API-Key", b" " + key.unsafe_text.encode()),
    ):
        assert desk(header) == Authenticated(expected)


def test_nothing_presented_is_missing(desk, statements):
    """Without a credential nobody is anybody."""
    assert desk().code == "missing_credential"
    assert desk((b"user-agent", b"x"), query=b"limit=5&after=keyboard").code == "missing_credential"
    assert statements == []


def test_two_credentials_at_once_are_refused(desk, minted, statements):
    """Also the same one twice, and a good one beside a bad one: no guess which was meant (DESIGN 7, invariant 3)."""
    key, other = minted(), minted()
    statements.clear()
    heads = [
        (bearer(key), (b"x-api-key", other.unsafe_text.encode())),
        (bearer(key), (b"x-api-key", key.unsafe_text.encode())),
        (bearer(key), bearer(key)),
        (bearer(key), bearer(other)),
        (bearer(key), (b"AUTHORIZATION", b"Basic YTpi")),
        (bearer(key), (b"x-api-key", b"")),
        ((b"x-api-key", key.unsafe_text.encode()),) * 2,
        ((b"authorization", b""), (b"x-api-key", key.unsafe_text.encode())),
    ]
    for head in heads:
        for ordered in (head, head[::-1]):
            assert desk(*ordered).code == "multiple_credentials"
    assert statements == []


def test_a_key_in_the_url_is_refused(desk, minted, statements):
    """Alone or beside a header, under any name, encoded once or twice: URLs are logged (DESIGN 7, invariant 3)."""
    key = minted()
    statements.clear()
    text = key.unsafe_text.encode()
    encoded = b"".join(b"%%%02X" % byte for byte in text)
    queries = [
        *(
            name + b"=x"
            for name in (b"api_key", b"api-key", b"key", b"token", b"access_token", b"X-API-Key", b"API%5fKEY")
        ),
        b"a=b&token",
        b"a=b;authorization=Bearer",
        b"q=" + text,
        b"q=1&" + text,
        b"q=" + encoded,
        b"q=" + encoded.replace(b"%", b"%25"),
    ]
    for query in queries:
        for head in ((), (bearer(key),)):
            assert desk(*head, query=query).code == "credential_in_query", query
    assert statements == []
    for query in (b"", b"limit=10", b"monkey=1&tokens=2", b"%", b"\xff=\xfe", b"&&;=", b"after=cls_"):
        assert isinstance(desk(bearer(key), query=query), Authenticated), query


def test_a_cookie_is_refused(desk, minted, statements):
    """A browser sends cookies without being asked; this API has no use for them (DESIGN 7, invariant 3)."""
    key = minted()
    statements.clear()
    for head in (((b"cookie", b"session=1"),), (bearer(key), (b"Cookie", b""))):
        assert desk(*head).code == "cookie_refused"
    assert statements == []


def malformed_headers() -> list[tuple[bytes, bytes]]:
    """What strangers send."""
    good = mint("dev", random.Random(5).randbytes).unsafe_text
    texts = [
        "",
        "x",
        "sk-" + "a" * 48,
        good[:-1],
        good + "A",
        good[:-1] + ("0" if good[-1] != "0" else "1"),
        good.upper(),
        f"{good},{good}",
        f"{good} {good}",
        "' OR 1=1 --",
        "cls_dev_' OR '1'='1_" + "a" * 49,
        good.replace(good[10], "'"),
        "\0" * 70,
        "a" * 1_000_000,
    ]
    headers = [(b"x-api-key", text.encode()) for text in texts]
    headers += [(b"authorization", b"Bearer " + text.encode()) for text in texts]
    headers += [
        (b"authorization", prefix + good.encode()) for prefix in (b"", b"Basic ", b"Token ", b"Bearer", b"Bearer\t")
    ]
    return headers


@pytest.mark.parametrize("header", malformed_headers(), ids=lambda header: ascii(header)[:60])
def test_a_malformed_key_meets_no_sql(desk, minted, statements, header):
    """Refused by form and checksum alone, with the answer that every bad key gets (DESIGN 7, invariant 3)."""
    minted()
    statements.clear()
    failure = desk(header)
    assert failure.code == "invalid_api_key"
    assert failure.reason in {"malformed", "unsupported_scheme"}
    assert failure.key_id == ""
    assert statements == []


def test_the_counter_counts(desk, minted, statements):
    """The premise of the tests above: a well-formed key, known or not, does meet SQL."""
    key = minted()
    for each in (key, mint("dev", random.Random(6).randbytes)):
        statements.clear()
        desk(bearer(each))
        assert statements


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from([b"authorization", b"x-api-key", b"Authorization", b"cookie"]),
    value=st.one_of(
        st.binary(max_size=120),
        st.text(string.printable, max_size=120).map(str.encode),
        st.from_regex(rb"\A(Bearer )?cls_[a-z]{1,12}_[0-9A-Za-z]{11}_[0-9A-Za-z]{49}\Z"),
    ),
    query=st.binary(max_size=60),
)
def test_drawn_carriers_prove_nobody_and_meet_no_sql(desk, statements, name, value, query):
    """A fuzz of every carrier: an answer, no identity, no statement."""
    statements.clear()
    assert isinstance(desk((name, value), query=query), AuthFailure)
    assert statements == []


def test_no_two_keys_that_share_a_prefix_share_an_identity(store):
    """Ids and secrets that agree in all but their last character are two keys (DESIGN 7, invariant 3)."""
    desk = Authenticator(store, [PEPPER], ignored)

    def key_of(id_tail: int, secret_tail: int):
        return mint("dev", lambda size: bytes(size - 1) + bytes([id_tail if size == 8 else secret_tail]))

    ada, bob = key_of(1, 1), key_of(2, 1)
    assert ada.unsafe_text[:18] == bob.unsafe_text[:18]
    store.add(make_record(ada, owner="ada"))
    store.add(make_record(bob, owner="bob"))
    for _ in range(2):
        assert desk.authenticate([bearer(ada)], b"", NOW_US).principal.id == "ada"
        assert desk.authenticate([bearer(bob)], b"", NOW_US).principal.id == "bob"
        near = key_of(1, 2)
        assert near.unsafe_text[:61] == ada.unsafe_text[:61]
        assert desk.authenticate([bearer(near)], b"", NOW_US).reason == "wrong_secret"


def refusals(minted):
    """One key for each reason why a well-formed key proves nobody, with that reason."""
    stranger = Pepper(b"s" * 32)
    wrong = mint("dev", random.Random(8).randbytes)
    return {
        "unknown": mint("dev", random.Random(9).randbytes),
        "wrong_secret": with_id(wrong, minted().key_id),
        "revoked": minted(revoked_at_us=NOW_US - 1),
        "expired": minted(expires_at_us=NOW_US),
        "not_yet_valid": minted(not_before_us=NOW_US + 1),
        "unknown_pepper": minted(pepper_id=stranger.id),
        "wrong_environment": minted(env="prod"),
    }


def with_id(key, key_id):
    """The same secret under another id, with the checksum to match."""
    given = iter([base62(key_id).to_bytes(8), base62(key.secret.decode()).to_bytes(32)])
    return mint(key.env, lambda _size: next(given))


def base62(text: str) -> int:
    """Read base62."""
    alphabet = string.digits + string.ascii_uppercase + string.ascii_lowercase
    value = 0
    for character in text:
        value = value * 62 + alphabet.index(character)
    return value


def test_every_key_that_proves_nobody_gets_one_answer(desk, minted):
    """Unknown, wrong, revoked, expired and the rest differ for the auditor, not for the client."""
    answers = {}
    for reason, key in refusals(minted).items():
        failure = desk(bearer(key))
        assert isinstance(failure, AuthFailure)
        assert failure.reason == reason
        assert failure.key_id == key.key_id
        answers[reason] = (failure.code, failure.message)
    answers["malformed"] = (desk((b"x-api-key", b"x")).code, desk((b"x-api-key", b"x")).message)
    assert set(answers.values()) == {("invalid_api_key", "The API key is not valid.")}


def test_every_key_that_proves_nobody_costs_the_same(desk, minted, statements, monkeypatch):
    """One look-up, one HMAC, one comparison of 32 bytes each, whatever the reason: nothing to time."""
    work: list[tuple[int, int]] = []
    digests: list[int] = []
    compare, digest = hmac.compare_digest, secret_digest

    def counted_compare(one, two):
        work.append((len(one), len(two)))
        return compare(one, two)

    def counted_digest(pepper, secret):
        digests.append(len(secret))
        return digest(pepper, secret)

    keys = refusals(minted)
    desk(bearer(keys["unknown"]))
    monkeypatch.setattr("appliance.identity.authenticate.hmac.compare_digest", counted_compare)
    monkeypatch.setattr("appliance.identity.authenticate.secret_digest", counted_digest)
    for reason, key in keys.items():
        statements.clear()
        work.clear()
        digests.clear()
        assert desk(bearer(key)).reason == reason
        assert (work, digests, statements) == ([(32, 32)], [43], ["PRAGMA data_version"]), reason


def test_a_record_whose_digest_is_the_placeholder_lets_nobody_in(desk, minted):
    """Zeroed digests in a damaged row match no secret."""
    assert desk(bearer(minted(hmac=bytes(32)))).reason == "wrong_secret"


def test_the_moments_of_beginning_and_end(desk, minted):
    """Valid from the first moment up to, not including, the last."""
    key = minted(not_before_us=NOW_US, expires_at_us=NOW_US + HOUR_US)
    for now_us, reason in (
        (NOW_US - 1, "not_yet_valid"),
        (NOW_US, None),
        (NOW_US + HOUR_US - 1, None),
        (NOW_US + HOUR_US, "expired"),
    ):
        answer = desk(bearer(key), now_us=now_us)
        assert (answer.reason if isinstance(answer, AuthFailure) else None) == reason


def test_revocation_holds_from_the_next_request(desk, store, minted):
    """No cache outlives it."""
    key = minted()
    assert isinstance(desk(bearer(key)), Authenticated)
    store.revoke(key.key_id, NOW_US)
    assert desk(bearer(key)).reason == "revoked"


def test_an_older_pepper_still_proves_its_keys(store, minted):
    """Rotation: new keys under the first pepper, old records under their own; a lost pepper proves nothing."""
    old = minted()
    newer = Pepper(b"n" * 32)
    new = minted(pepper_id=newer.id)
    store_new = replace(make_record(mint("dev", random.Random(11).randbytes)), pepper_id=newer.id)
    assert store_new.pepper_id == newer.id
    desk = Authenticator(store, [newer, PEPPER], ignored)
    assert isinstance(desk.authenticate([bearer(old)], b"", NOW_US), Authenticated)
    assert desk.authenticate([bearer(new)], b"", NOW_US).reason == "wrong_secret"
    assert Authenticator(store, [newer], ignored).authenticate([bearer(old)], b"", NOW_US).reason == "unknown_pepper"
    with pytest.raises(ValueError, match="pepper"):
        Authenticator(store, [], ignored)


def test_only_a_proven_key_counts_as_used(desk, store, minted):
    """The day of use is noted for the owner; a stranger with the public id leaves no trace."""
    keys = refusals(minted)
    good = minted()
    for key in keys.values():
        desk(bearer(key))
    assert desk.uses == []
    desk(bearer(good))
    assert desk.uses == [(store.find(good.key_id), NOW_US // DAY_US)]


HEADER_NAMES = [
    "x-roles",
    "x-role",
    "x-tenant",
    "x-user",
    "x-forwarded-for",
    "x-forwarded-user",
    "x-cloister-label",
    "x-clearance",
    "from",
    "user-agent",
    "content-type",
    "x-original-url",
    "forwarded",
]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    extra=st.lists(st.tuples(st.sampled_from(HEADER_NAMES).map(str.encode), st.binary(max_size=40)), max_size=6),
    query=st.lists(st.sampled_from(["roles=auditor", "user=eve", "tenant=lab", "admin=1", "clearance=4"]), max_size=3),
)
def test_no_request_raises_its_own_rights(desk, store, extra, query):
    """Whatever else the head says, the principal is the record's (DESIGN 7, invariant 2)."""
    key = mint("dev", random.Random(12).randbytes)
    if store.find(key.key_id) is None:
        store.add(make_record(key, roles=("developer",), clearance=1))
    answer = desk(bearer(key), *extra, query="&".join(query).encode())
    assert answer == Authenticated(Principal("ada", "User", "plant", ("developer",), 1, key.key_id))


def test_no_failure_carries_the_secret(desk, minted):
    """Neither what the client gets nor what the auditor reads quotes a key (DESIGN 7, invariant 9)."""
    for key in refusals(minted).values():
        for head in (
            (bearer(key),),
            (bearer(key), bearer(key)),
            ((b"authorization", b"Basic " + key.unsafe_text.encode()),),
        ):
            for query in (b"", b"key=" + key.unsafe_text.encode()):
                failure = desk(*head, query=query)
                told = " ".join(str(getattr(failure, field.name)) for field in fields(failure)) + repr(failure)
                assert key.secret.decode() not in told
                assert key.unsafe_text[-12:] not in told
