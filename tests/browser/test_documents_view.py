"""Documents on the page: progress, failures with their reasons, retry, delete."""

from __future__ import annotations

from collections.abc import Callable

from acting import READ, address, drawn, row
from planted import locked, story, torn
from playwright.sync_api import Page, expect
from serving import Server, finished, upload
from watching import Watch

NewPage = Callable[..., Page]
MANY = 900  # pages: enough to be seen on their way

# What the page said of a document, one after the other, without being loaded again.
FOLLOW = """name => {
    window.followed = [];
    const note = () => {
        const row = document.querySelector(`[data-testid=document][data-name="${name}"]`);
        const said = row && `${row.dataset.state}: ${row.querySelector(".document-line .number").textContent}`;
        if (said && said !== window.followed.at(-1)) window.followed.push(said);
    };
    new MutationObserver(note).observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
}"""  # noqa: E501


def choose(page: Page, name: str, data: bytes, kind: str = "application/pdf") -> None:
    page.get_by_test_id("upload").set_input_files({"name": name, "mimeType": kind, "buffer": data})


def test_the_way_of_a_document_is_shown_as_it_goes(new_page: NewPage) -> None:
    page = new_page(address("drop", view="documents"))
    page.get_by_test_id("documents-summary").wait_for()
    page.evaluate(FOLLOW, "long.pdf")
    page.get_by_test_id("upload-tags").fill("year=2024, kind=novel")
    choose(page, "long.pdf", story([f"chapter {number} of the long story" for number in range(MANY)]))
    long = row(page, "long.pdf")
    expect(long).to_have_attribute("data-state", "indexed", timeout=READ)
    said = page.evaluate("window.followed")
    assert said[0].split(":")[0] in ("queued", "working"), said
    done = [int(each.split()[1]) for each in said if each.endswith(f"of {MANY} pages")]
    assert any(0 < count < MANY for count in done), said
    assert done == sorted(done)
    assert said[-1] == f"indexed: {MANY} pages"
    for tag in ("year=2024", "kind=novel"):
        expect(long).to_contain_text(tag)

    page.get_by_role("button", name="Delete long.pdf").click()
    confirm = page.get_by_test_id("confirm")
    expect(confirm).to_contain_text(f"long.pdf and its {MANY} pages leave the index.")
    confirm.get_by_role("button", name="Cancel").click()
    expect(long).to_be_visible()
    page.get_by_role("button", name="Delete long.pdf").click()
    expect(confirm).to_be_visible()
    page.keyboard.press("Escape")
    expect(confirm).to_have_count(0)
    page.get_by_role("button", name="Delete long.pdf").click()
    confirm.get_by_role("button", name="Delete").click()
    expect(long).to_have_count(0)
    page.reload()
    page.get_by_test_id("documents-summary").wait_for()
    expect(long).to_have_count(0)


def test_failures_say_why_and_can_be_tried_again(new_page: NewPage, server: Server) -> None:
    page = new_page(address("drop", view="documents"))
    choose(page, "locked.pdf", locked(["a heron"]))
    choose(page, "torn.pdf", torn(["a heron", "an otter", "a newt"], 2))
    failed, partial = row(page, "locked.pdf"), row(page, "torn.pdf")
    expect(failed).to_have_attribute("data-state", "failed", timeout=READ)
    expect(failed).to_contain_text("The file is encrypted")
    expect(failed).to_contain_text("(password)")
    expect(partial).to_have_attribute("data-state", "partial", timeout=READ)
    expect(partial).to_contain_text("2 of 3 pages, 1 failed")
    expect(partial).to_contain_text("Page 2")
    expect(partial).to_contain_text("(corrupt)")

    page.get_by_test_id("state-filter").select_option("failed")
    expect(partial).to_have_count(0)
    expect(failed).to_be_visible()
    with page.expect_response(lambda answer: answer.url.endswith("/retry")) as answer:
        page.get_by_role("button", name="Retry locked.pdf").click()
    assert answer.value.status == 202
    page.get_by_test_id("state-filter").select_option("")
    expect(failed).to_have_attribute("data-state", "failed", timeout=READ)
    expect(partial).to_be_visible()

    client = server.client()
    upload(client, "drop", "locked.pdf", story(["a heron"]))  # the same name, now without a password
    expect(failed).to_have_attribute("data-state", "indexed", timeout=READ)
    expect(failed).not_to_contain_text("password")
    for name in ("locked.pdf", "torn.pdf"):
        page.get_by_role("button", name=f"Delete {name}").click()
        page.get_by_test_id("confirm").get_by_role("button", name="Delete").click()
        expect(row(page, name)).to_have_count(0)


def test_what_is_no_document_is_refused_with_the_reason(new_page: NewPage, watch: Watch) -> None:
    watch.expected.append(r"status of 415")
    page = new_page(address("drop", view="documents"))
    choose(page, "page.pdf", b"<html><body>not a pdf</body></html>")
    refused = page.get_by_test_id("upload-row").filter(has_text="page.pdf")
    expect(refused.get_by_role("alert")).to_contain_text("HTML")
    refused.get_by_role("button", name="Dismiss").click()
    expect(refused).to_have_count(0)
    choose(page, "large.pdf", b"%PDF-1.7\n" + bytes(2**21))
    expect(page.get_by_test_id("upload-row").get_by_role("alert")).to_have_text(
        "Larger than the 2 MB that this server takes."
    )
    expect(row(page, "page.pdf")).to_have_count(0)


def test_a_colleague_sees_what_comes_in(new_page: NewPage, server: Server, watch: Watch) -> None:
    """The list follows what others do, too; who turns the page of a document that has been deleted is told."""
    watch.expected.append(r"status of 404")
    page = new_page(address("drop", view="documents"))
    page.get_by_test_id("documents-summary").wait_for()
    client = server.client()
    document = upload(client, "drop", "from elsewhere.pdf", story(["a heron", "a stork"])).json()
    expect(row(page, "from elsewhere.pdf")).to_have_attribute("data-state", "indexed", timeout=READ)
    finished(client, "drop", document["id"])
    page.get_by_role("link", name="from elsewhere.pdf", exact=True).click()
    expect(page.get_by_test_id("page-position")).to_have_text("page 1 of 2")
    drawn(page)
    assert client.delete(f"/v1/collections/drop/documents/{document['id']}").status_code == 204
    page.keyboard.press("]")
    expect(page.get_by_role("alert")).to_contain_text("from elsewhere.pdf")
