"""The live page in a real browser, on the real stack: it shows what happens, and says what it cannot."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from uuid import uuid4

import jwt
import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from playwright.sync_api import expect

from .serving import Delivery

ALL = ("ingester", "processor", "gateway")
SECRET = "a secret of at least thirty-two bytes"
LATENCY = re.compile(r"^-?\d+(\.\d)? ms$")
DESK, PHONE, SMALL = (
    {"width": width, "height": height} for width, height in ((1200, 1200), (390, 1700), (320, 1700))
)

expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def delivery(stack):
    """A topic and a store of its own."""
    topic = f"page-{uuid4().hex[:8]}"
    stack.create_topic(topic)
    with Delivery(stack, topic) as delivery:
        yield delivery


@pytest.fixture(scope="module")
def everything(delivery):
    """Ingester, processor and gateway in one process."""
    return delivery.start(*ALL)


@pytest.fixture
def server(everything):
    """The same, and running."""
    everything.process.launch()
    everything.process.wait_ready()
    return everything


@pytest.fixture
def source():
    return f"repo:octo/r{uuid4().hex[:8]}"


@contextmanager
def window(browser, **options):
    """A page, and what its console complained of."""
    context = browser.new_context(viewport=options.pop("viewport", DESK), **options)
    context.set_default_timeout(20_000)
    page = context.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    try:
        yield page, complaints
    finally:
        context.close()


@pytest.fixture
def page(browser):
    """A page whose console must stay silent."""
    with window(browser) as (page, complaints):
        yield page
        assert complaints == []


@pytest.fixture
def troubled(browser):
    """A page that is to meet trouble; only the browser itself, of the network, may complain."""
    with window(browser) as (page, complaints):
        yield page
        network = re.compile(
            r"net::ERR_|the server responded with a status of|WebSocket connection to .* failed"
        )
        assert [text for text in complaints if not network.search(text)] == []


def publish(url, source, count=1, *, kind="push", data=None, token=None):
    """Post events; their ids."""
    source_type, _, source_id = source.partition(":")
    event = {"type": kind, "source_type": source_type, "source_id": source_id}
    lines = [json.dumps(event | {"data": {"n": n} if data is None else data}) for n in range(count)]
    headers = {"Content-Type": "application/x-ndjson"} | (
        {"Authorization": f"Bearer {token}"} if token else {}
    )
    request = urllib.request.Request(f"{url}/ingest", "\n".join(lines).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return [entry["id"] for entry in json.load(answer)["events"]]


def wait_stored(url, ids):
    """Until the last of them can be read, and so all can: they are of one source."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"{url}/events/{ids[-1]}", timeout=20):
                return
        except urllib.error.HTTPError as error:
            if error.code != 404 or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def watch(page, source):
    page.get_by_label("Source to watch").fill(source)
    page.keyboard.press("Enter")
    expect_state(page, "Live")


def expect_state(page, word):
    expect(page.get_by_role("status")).to_have_text(word)


def rows(page):
    return page.locator("#list .row")


def test_a_source_is_typed_and_its_events_arrive_live_with_their_latency(page, server, source):
    page.goto(server.url)
    expect_state(page, "Not watching")
    watch(page, source)
    assert page.url == f"{server.url}/#{source}"
    expect(page.locator("#curl")).to_contain_text(f'"source_id":"{source.partition(":")[2]}"')
    (first,) = publish(server.url, source)
    expect(rows(page)).to_have_count(1)
    expect(rows(page).locator(".took")).to_have_text(LATENCY)
    expect(rows(page).locator(".id")).to_have_text(f"…{first[-12:]}")
    expect(page.locator("#median")).to_have_text(LATENCY)
    publish(server.url, source, 3, kind="issues.opened")
    expect(rows(page)).to_have_count(4)
    expect(rows(page).first.locator(".type")).to_have_text("issues.opened")
    expect(page.locator("#received")).to_have_text("4")


def test_the_command_that_the_empty_page_shows_publishes(page, server, source):
    page.goto(f"{server.url}/#{source}")
    expect_state(page, "Live")
    command = page.locator("#curl").inner_text()
    assert os.system(f"{command} -sS --max-time 20 >/dev/null") == 0
    expect(rows(page).locator(".took")).to_have_text(LATENCY)


def test_an_event_opens_by_keyboard_and_the_list_waits_meanwhile(page, server, source):
    page.goto(f"{server.url}/#{source}")
    expect_state(page, "Live")
    publish(server.url, source, 3, data={"big": 12345678901234567890, "list": [1, {}], "ratio": 1.0})
    expect(rows(page)).to_have_count(3)
    rows(page).first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    whole = page.get_by_label("The whole event")
    # numbers stay as they were written
    expect(whole).to_contain_text(
        '    "big": 12345678901234567890,\n    "list": [\n      1,\n      {}\n    ],'
    )
    expect(whole).to_contain_text('"ratio": 1.0')
    expect(page.locator(".whole")).to_contain_text(re.compile(r"position \d:\d+"))
    publish(server.url, source, 2)
    expect(page.locator("#pause")).to_have_text("Resume (2 new)")
    expect(rows(page)).to_have_count(3)
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(5)
    expect(page.locator("#pause")).to_have_text("Pause")


@pytest.mark.parametrize("wrong", ["source", "id", "position"])
def test_another_event_than_was_announced_is_not_shown(page, server, source, wrong):
    def of_another(route):
        answer = route.fetch()
        event, headers = answer.json(), dict(answer.headers)
        if wrong == "source":
            event["source_id"] = "somebody/else"
        elif wrong == "id":
            event["id"] = "another"
        else:
            partition, _, offset = headers["x-position"].partition(":")
            headers["x-position"] = f"{partition}:{int(offset) + 1}"
        route.fulfill(response=answer, json=event, headers=headers)

    page.route("**/event?*", of_another)
    page.goto(f"{server.url}/#{source}")
    expect_state(page, "Live")
    publish(server.url, source, 1, data={"secret": "of somebody else"})
    expect(rows(page)).to_have_count(1)
    rows(page).first.click()
    whole = page.get_by_label("The whole event")
    expect(whole).to_contain_text("Not shown: the server answered with another event")
    expect(whole).not_to_contain_text("secret")


@pytest.mark.parametrize("name", ["//", "..", "a/b?c=d#e&f+g%h", "{x}"])
def test_an_event_of_any_id_opens(page, server, source, name):
    page.goto(f"{server.url}/#{source}")
    expect_state(page, "Live")
    body = {"type": "push", "source_type": "repo", "source_id": source[5:], "id": name, "data": "it is this"}
    asked = urllib.request.Request(
        f"{server.url}/ingest", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked) as answer:
        assert answer.status == 202
    expect(rows(page)).to_have_count(1)
    rows(page).first.click()
    expect(page.get_by_label("The whole event")).to_contain_text("it is this")


def test_what_strangers_write_is_shown_as_text(page, server):
    source = f"repo:octo/<img/src=x/onerror=hacked=1>{uuid4().hex[:6]}"
    kind = "<svg/onload=hacked=1>"
    page.goto(server.url)
    watch(page, source)
    publish(server.url, source, kind=kind, data={"text": "</pre><script>hacked=1</script>"})
    expect(rows(page).locator(".type")).to_have_text(kind)
    rows(page).click()
    expect(page.get_by_label("The whole event")).to_contain_text("</pre><script>hacked=1</script>")
    expect(page.locator("#chips")).to_contain_text(source)
    assert page.evaluate("typeof hacked") == "undefined"
    page.reload()
    expect(page.locator("#chips")).to_contain_text(source)
    expect(rows(page)).to_have_count(1)


def test_without_redis_it_says_degraded_and_events_arrive_until_it_is_live_again(page, server, stack, source):
    page.goto(f"{server.url}/#{source}")
    expect_state(page, "Live")
    stack.redis.kill()
    expect_state(page, "Degraded")
    expect(page.locator("#why")).to_contain_text("Redis is away")
    publish(server.url, source, 2)
    expect(rows(page).locator(".took")).to_have_text(["recovered", "recovered"])
    expect(page.locator("#late")).to_have_text("2")
    stack.redis.launch()
    stack.redis.wait_ready()
    expect_state(page, "Live")
    publish(server.url, source)
    expect(rows(page)).to_have_count(3)
    expect(page.locator("#list")).to_contain_text("Redis is back: live again")


def test_a_server_that_was_killed_is_found_again_and_what_happened_meanwhile_is_caught_up(
    troubled, server, delivery, source
):
    other = delivery.start("ingester")
    troubled.goto(f"{server.url}/#{source}")
    expect_state(troubled, "Live")
    known = publish(server.url, source, 2)
    expect(rows(troubled)).to_have_count(2)
    server.kill()
    expect_state(troubled, "Reconnecting")
    expect(troubled.locator("#countdown")).to_have_text(re.compile(r"in \d+ s"))
    missed = publish(other.url, source, 5)
    server.process.launch()
    server.process.wait_ready()
    retry = troubled.get_by_role("button", name="Retry now")
    with suppress(PlaywrightTimeout):  # it may have connected again by itself
        retry.click(timeout=1000)
    expect_state(troubled, "Live")
    expect(troubled.locator("#list .took.old")).to_have_count(5)
    after = publish(server.url, source, 1)
    expect(rows(troubled)).to_have_count(8)
    shown = [text.removeprefix("…") for text in rows(troubled).locator(".id").all_inner_texts()]
    assert shown == [event_id[-12:] for event_id in reversed(known + missed + after)]
    expect(troubled.locator("#reconnects")).to_have_text("1")
    expect(troubled.locator("#list")).to_contain_text("Connected again: 5 caught up")


def test_a_past_that_cannot_be_recovered_is_said(page, server, source):
    def of_another_log(route):
        answer = route.fetch()
        about = answer.json()
        about["cursor"] = "0" * 12 + ":" + about["cursor"].partition(":")[2]
        route.fulfill(response=answer, json=about)

    page.route("**/events?*", of_another_log)
    page.goto(f"{server.url}/#{source}")
    expect(page.locator("#gap")).to_contain_text("Not recovered.")
    expect(page.locator("#gap")).to_contain_text("The log was made anew")
    expect(page.locator("#list .note")).to_contain_text("events may be missing here")
    expect_state(page, "Live")
    page.get_by_role("button", name="Dismiss").click()
    expect(page.locator("#gap")).to_be_hidden()


def test_recent_events_are_there_at_once_and_are_not_repeated(page, server, source):
    wait_stored(server.url, publish(server.url, source, 30))
    page.goto(f"{server.url}/#{source}")
    expect_state(page, "Live")
    publish(server.url, source, 1)
    expect(rows(page)).to_have_count(21)
    ids = rows(page).locator(".id").all_inner_texts()
    assert len(ids) == len(set(ids))
    expect(page.locator(".took.kept")).to_have_count(20)


def test_several_sources_are_shared_by_address_and_can_be_left(page, server, source):
    other = f"{source},2"  # a comma belongs to its name
    page.goto(f"{server.url}/#{source}")
    expect_state(page, "Live")
    watch(page, other)
    address = page.url
    assert address.endswith(f"#{source},{source}%2C2")
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator(".chip")).to_have_text([f"{source}live✕", f"{other}live✕"])
    publish(server.url, source)
    publish(server.url, other)
    expect(rows(page).locator(".from")).to_have_text([other, source])
    page.get_by_role("button", name=f"Stop watching {source}", exact=True).click()
    expect(rows(page)).to_have_count(1)
    publish(server.url, source)
    publish(server.url, other)
    expect(rows(page)).to_have_count(2)
    assert page.url.endswith(f"/#{source}%2C2")
    page.go_back()
    expect(page.locator(".chip")).to_have_count(2)


@pytest.mark.parametrize(("name", "said"), [("nonsense", "type:id"), ("repo:a*", "only printable")])
def test_a_name_that_is_none_is_refused_with_the_reason(troubled, server, name, said):
    troubled.goto(server.url)
    troubled.get_by_label("Source to watch").fill(name)
    troubled.keyboard.press("Enter")
    expect(troubled.get_by_role("alert").first).to_contain_text(said)
    expect(troubled.get_by_label("Source to watch")).to_have_value(name)
    expect(troubled.locator(".chip")).to_have_count(0)


def test_two_thousand_events_a_second_leave_it_usable_and_none_out(page, server, source):
    page.goto(f"{server.url}/#{source}")
    expect_state(page, "Live")
    total, began = 4000, time.monotonic()
    for sent in range(0, total, 200):
        publish(server.url, source, 200)
        time.sleep(max(0.0, began + (sent + 200) / 2000 - time.monotonic()))
    page.get_by_role("button", name="Pause").click(timeout=15_000)
    expect(page.locator("#received")).to_have_text(f"{total:,}")
    page.get_by_role("button", name="Resume").click(timeout=15_000)
    expect(rows(page)).to_have_count(200)
    assert page.locator("#list > li").count() == 200


def test_a_browsers_event_source_gets_the_same(page, server, source):
    page.goto(server.url)
    page.evaluate(
        """source => new Promise(subscribed => {
            const events = new EventSource(`/sse?source=${source}`);
            const messages = [];
            window.three = new Promise((resolve, reject) => {
                setTimeout(() => reject(`${messages.length} of 3 events in 20 s`), 20000);
                events.addEventListener("event", ({ data, lastEventId }) => {
                    messages.push([JSON.parse(data), lastEventId]);
                    if (messages.length === 3) resolve(messages);
                });
            });
            events.addEventListener("subscribed", subscribed);
        })""",
        source,
    )
    ids = publish(server.url, source, 3)
    # awaited in the page: wait_for_function evaluates text in it, which its own CSP forbids
    messages = page.evaluate("three")
    assert [message["id"] for message, _ in messages] == ids
    assert all(resume == message["cursor"] for message, resume in messages)


def test_a_token_is_asked_for_sent_first_and_asked_for_again_when_it_expires(
    troubled, server, delivery, source
):
    server = delivery.start("ingester", "gateway", jwt_secret=SECRET)  # the other one has the processor

    def token(seconds, *, read="repo:octo/*"):
        claims = {"exp": time.time() + seconds, "read": [read], "write": ["*"]}
        return jwt.encode(claims, SECRET, "HS256")

    def give(text):
        troubled.get_by_label("Access token").fill(text)
        troubled.get_by_role("button", name="Connect").click()

    sent, addresses = [], []

    def listen(socket):
        addresses.append(socket.url)
        socket.on("framesent", lambda frame: sent.append(json.loads(frame)))

    troubled.on("websocket", listen)
    troubled.on("request", lambda request: addresses.append(request.url))
    troubled.goto(f"{server.url}/#{source}")
    expect_state(troubled, "Token needed")
    give("forged")
    expect(troubled.locator("#why")).to_contain_text("not valid")
    give(token(3600, read="repo:other/*"))
    expect_state(troubled, "Not allowed")
    expect(troubled.locator("#why")).to_contain_text("does not allow")
    troubled.reload()  # which forgets it
    expect_state(troubled, "Token needed")
    good = token(3600)
    give(good)
    expect_state(troubled, "Live")
    publish(server.url, source, token=good)
    expect(rows(troubled).locator(".took")).to_have_text(LATENCY)
    assert sent[0] == {"token": good}
    assert [address for address in [troubled.url, *addresses] if good in address] == []
    assert troubled.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    troubled.reload()
    give(token(4))
    expect(troubled.locator("#why")).to_contain_text("expired")
    expect_state(troubled, "Token needed")
    give(good)
    expect_state(troubled, "Live")


# Texts with less contrast to what is behind them than WCAG 2 AA asks for.
FAINT = """() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (text) => {
    const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = channels(text).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (channels(colour).at(3) !== 0) return colour;
    }
  };
  const weak = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest(".hush, script, style, template")) continue;
    const [one, two] = [getComputedStyle(element).color, behind(element)].map(light).sort((a, b) => b - a);
    const ratio = (one + 0.05) / (two + 0.05);
    if (ratio < 4.5) weak.push([element.outerHTML.slice(0, 80), ratio]);
  }
  return weak;
}"""


def test_it_fits_and_can_be_read(page, server, stack, source, tmp_path):
    """Nothing is wider than the screen and no text is faint. The pictures are for people, in tmp_path."""
    page.emulate_media(reduced_motion="reduce")
    page.goto(server.url)
    expect_state(page, "Not watching")
    look(page, tmp_path / "idle")
    data = {"ref": "refs/heads/main", "commits": [{"message": "w" * 200}]}
    wait_stored(server.url, publish(server.url, source, 3, data=data))
    watch(page, source)
    publish(server.url, source, 5, kind="pull_request_review_comment.created")
    expect(page.locator("#received")).to_have_text("5")
    look(page, tmp_path / "live")
    stack.redis.kill()
    expect_state(page, "Degraded")
    publish(server.url, source, 2)
    expect(page.locator("#late")).to_have_text("2")
    page.get_by_label("Source to watch").fill(f"org:{'long-' * 20}name")
    page.keyboard.press("Enter")
    expect(page.locator(".chip").last).to_contain_text("degraded")
    rows(page).first.click()
    expect(page.get_by_label("The whole event")).to_contain_text("data")
    look(page, tmp_path / "degraded")


def look(page, directory):
    """Take pictures, and check what can be measured."""
    directory.mkdir()
    page.wait_for_timeout(250)  # figures are drawn five times a second
    for scheme, size in (("light", DESK), ("dark", DESK), ("dark", PHONE), ("light", SMALL)):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme)
        picture = directory / f"{scheme}-{size['width']}.png"
        page.screenshot(path=picture)
        wide, there = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= there, picture
        assert page.evaluate(FAINT) == [], picture
    page.set_viewport_size(DESK)
