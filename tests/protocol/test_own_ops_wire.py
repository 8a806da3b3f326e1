"""Own ops on the wire: names that the daemon judges, digests of sources, and failures."""

from __future__ import annotations

import pytest

from augd.plan.recipe.op_catalogue import Catalogue
from augd.plan.recipe.op_schema import catalogue_of, survey_of
from augd.protocol import messages as msg
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.broker import Broker
from examples.own_ops import Slant, Vignette
from tests.protocol.harness import RECIPE, Client, FakeWire, make_spec

clause = pytest.mark.clause

FIRST, SECOND = "examples.own_ops", "others"
KNOWN = Catalogue([(FIRST, Vignette), (SECOND, Slant)], {FIRST: "ab", SECOND: "cd"})


@pytest.fixture
def fake() -> FakeWire:
    return FakeWire(catalogue=catalogue_of(survey_of(KNOWN)))


def with_op(**op: object) -> msg.Spec:
    return make_spec(recipe={**RECIPE, "ops": [*RECIPE["ops"], op]})


@clause("P-123")
def test_names_are_the_daemons_to_judge(fake: FakeWire) -> None:
    client = Client(fake).join()
    client.open(with_op(op="vignete"), credit=1)
    error = client.hear(msg.Error)
    assert error.code == "BAD_RECIPE"
    assert error.text.startswith("recipe.ops[1].op: expected one of all_of, ")
    assert ", slant, " in error.text
    assert error.text.endswith(", vignette, zoom, got 'vignete'. Did you mean vignette?")
    client.open(with_op(op="vignette", strength=[0.5, 2]), credit=1)
    text = client.hear(msg.Error).text
    assert text == "recipe.ops[1].strength[1]: expected float <= 1.0, got 2. Change the value."
    client.open(with_op(op="vignette", strength=[0.5, 1]), credit=1)
    opened = client.hear(msg.Opened)
    assert opened.content_fields["recipe.ops[1].strength"] == "[0.5,1.0]"
    client.hear(msg.BatchMessage)


@clause("P-123")
def test_without_plug_ins_the_built_in_ops_are_listed() -> None:
    client = Client(FakeWire()).join()
    client.open(with_op(op="vignette"), credit=1)
    error = client.hear(msg.Error)
    assert error.code == "BAD_RECIPE"
    assert ", zoom, got 'vignette'" in error.text


@clause("P-124")
@pytest.mark.parametrize(("op", "module"), [("vignette", FIRST), ("slant", SECOND)])
def test_content_has_the_digests_of_the_modules_that_are_used(
    fake: FakeWire, op: str, module: str
) -> None:
    client = Client(fake).join()
    client.open(with_op(op=op), credit=1)
    fields = client.hear(msg.Opened).content_fields
    found = {name for name in fields if name.startswith("environment.plugin.")}
    assert found == {f"environment.plugin.{module}"}
    plain = Client(fake).join()
    plain.open(credit=1)
    assert "plugin" not in str(plain.hear(msg.Opened).content_fields)


@clause("P-124")
@pytest.mark.parametrize("digest", [{}, {f"plugin.{FIRST}": "changed", f"plugin.{SECOND}": "cd"}])
def test_a_producer_with_another_source_is_sent_away(digest: dict[str, str]) -> None:
    fake = FakeWire(producers=1, catalogue=catalogue_of(survey_of(KNOWN)))
    fake.environment = {"opencv": "5", **digest}
    fake.lose_producer(0)
    fake.turn_clock(0)
    assert fake.killed == [0]
    assert any("its libraries or plug-ins differ" in text for text in fake.logged)


@clause("P-124")
def test_the_first_producer_must_have_what_the_daemon_was_told_of() -> None:
    broker = Broker("x", "/x", {}, 1, catalogue=Catalogue([(FIRST, Vignette)], {FIRST: "ab"}))
    broker.handle(ev.Tick(), 0.0)
    changed = {"opencv": "5", f"plugin.{FIRST}": "changed since"}
    assert ev.KillProducer(0) in broker.handle(ev.FromLocalProducer(0, msg.Ready(1, changed)), 1.0)
    assert broker.snapshot()["producers"][0]["state"] == "killed"


@clause("P-125")
@pytest.mark.parametrize("bad", ["mask", "fail"])
@pytest.mark.parametrize("code", ["PLUGIN_FAILED", "BAD_RECIPE", "STORE_FAILED"])
def test_an_op_that_fails_ends_its_stream_and_no_other(fake: FakeWire, code: str, bad: str) -> None:
    other = Client(fake).join()
    other.open(credit=0)
    other.hear(msg.Opened)
    client = Client(fake).join()
    fake.is_holding = True
    spec = with_op(op="vignette")
    client.open(make_spec(recipe=spec.recipe, bad=bad), credit=1)
    client.hear(msg.Opened)
    text = "op vignette failed at sample 0 (0.png), epoch 0: ValueError"
    while fake.leases:
        producer, lease = fake.leases.popleft()
        fake.from_producer(producer, msg.Fail(lease.lease, text, code))  # type: ignore[arg-type]
    error = client.hear(msg.Error)
    assert (error.code, error.text, error.opening) == (code, text, 1)
    fake.is_holding = False
    other.flow(1)
    other.hear(msg.BatchMessage)
    assert fake.killed == []
