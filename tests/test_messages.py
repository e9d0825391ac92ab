"""Messages: text made safe for Slack, text as somebody typed it, and messages for a terminal."""

import json
import random
import re

import pytest

import slackbot

ESCAPED = [
    ("", ""), ("plain", "plain"), ("a & b", "a &amp; b"), ("<!channel>", "&lt;!channel&gt;"),
    ("<https://evil.example|you>", "&lt;https://evil.example|you&gt;"), ("&amp;", "&amp;amp;"),
    ("&lt;b&gt;", "&amp;lt;b&amp;gt;"), ("it's \"so\"", "it's \"so\""),
    ("Größe 名前 🚀", "Größe 名前 🚀")]


@pytest.mark.parametrize("text, escaped", ESCAPED)
def test_escaping_leaves_no_character_that_slack_would_act_on(text, escaped):
    assert slackbot.escape(text) == escaped
    assert slackbot.unescape(escaped) == text


@pytest.mark.parametrize("value, escaped", [(5, "5"), (None, "None"), (ValueError("<"), "&lt;")])
def test_any_value_can_be_escaped(value, escaped):
    assert slackbot.escape(value) == escaped


@pytest.mark.parametrize("text, plain", [
    ("&amp;lt;", "&lt;"), ("&amp;amp;", "&amp;"), ("&amp;amp;lt;", "&amp;lt;"),
    ("&quot;&#39;&nbsp;", "&quot;&#39;&nbsp;"), ("&AMP;", "&AMP;"), ("& lt;", "& lt;"),
    ("&lt;&gt;&amp;", "<>&"), ("&&lt;;", "&<;")])
def test_the_three_entities_are_undone_once(text, plain):
    assert slackbot.unescape(text) == plain


def test_unescaping_undoes_escaping_for_any_text():
    chance = random.Random(0)
    for _ in range(2000):
        text = "".join(chance.choices(["&", "<", ">", ";", "amp", "lt", "gt", "x", " "], k=12))
        assert slackbot.unescape(slackbot.escape(text)) == text


UNLINKED = [
    ("no link", "no link"), ("", ""),
    ("<http://example.com|example.com>", "example.com"),
    ("<https://example.com/a?b=1|example.com/a?b=1>", "example.com/a?b=1"),
    ("<http://example.com>", "http://example.com"),
    ("<https://example.com/a|b>", "b"),
    ("<mailto:ann@example.com|ann@example.com>", "ann@example.com"),
    ("<mailto:ann@example.com>", "ann@example.com"),
    ("<tel:+4930123|+49 30 123>", "+49 30 123"), ("<tel:+4930123>", "+4930123"),
    ("<@U1|ann>", "@ann"), ("<@U1>", "@U1"), ("<#C1|general>", "#general"), ("<#C1>", "#C1"),
    ("<@U1|ann> and <@U2|bob>", "@ann and @bob"),
    ("MX <http://example.com|example.com> 5", "MX example.com 5"),
    ("(<http://a.example|a.example>,<http://b.example|b.example>)", "(a.example,b.example)"),
    ("a < b > c", "a < b > c"), ("a <b> c", "a <b> c"), ("x <- y | z ->", "x <- y | z ->"),
    ("<http://a", "<http://a"), ("<>", "<>"), ("<|>", "<|>"), ("<<@U1|ann>>", "<@ann>")]


@pytest.mark.parametrize("text, typed", UNLINKED)
def test_links_that_slack_made_become_the_text_that_was_typed(text, typed):
    assert slackbot.unlink(text) == typed


@pytest.mark.parametrize("text, line", [
    ("<http://a.example/?x=1&amp;y=2|a.example/?x=1&amp;y=2>", "/c a.example/?x=1&y=2"),
    ("&lt;http://a.example|b&gt;", "/c <http://a.example|b>"),
    ("&amp;lt;@U1&amp;gt;", "/c &lt;@U1&gt;"), ("&lt;@U1|ann&gt;", "/c <@U1|ann>"),
    ("  a ", "/c   a"), ("", "/c")])
def test_links_in_a_command_line_are_undone_before_its_entities(text, line):
    assert slackbot.Request(command="/c", text=text).line == line


@pytest.mark.parametrize("text, limit, expected", [
    ("one\n*two*\t three ", 100, "one *two* three"), ("", 5, ""), (" \r\n\f\v ", 5, ""),
    ("12345", 5, "12345"), ("123456", 5, "1234…"), ("名前名前名前", 5, "名前名前…"),
    ("<<<<<<", 5, "&lt;&lt;&lt;&lt;…"), ("&&&&&", 5, "&amp;" * 5), ("a    b", 3, "a b"),
    (None, 100, "None"), (1234, 3, "12…"), ("line\u2028sep\x85par", 100, "line sep par")])
def test_one_line_makes_text_one_short_line(text, limit, expected):
    assert slackbot.one_line(text, limit) == expected


@pytest.mark.parametrize("url, label, expected", [
    ("https://a.example/", "A", "<https://a.example/|A>"),
    ("https://a.example/?a=1&b=2", "A & B", "<https://a.example/?a=1&amp;b=2|A &amp; B>"),
    ("https://a.example/>", "<b>", "<https://a.example/&gt;|&lt;b&gt;>")])
def test_a_link_holds_plain_text(url, label, expected):
    assert slackbot.link(url, label) == expected


@pytest.mark.parametrize("url, label", [
    ("https://a.example/|<!channel>", "x"), ("https://a.example/", "x> <!channel>"),
    ("https://a.example/> <@U1>", "<https://evil.example|x>"), ("https://a.example/<", "a|b")])
def test_a_link_stays_one_link_whatever_is_in_it(url, label):
    found = re.findall(r"<([^<>|]*)\|([^<>]*)>", made := slackbot.link(url, label))
    assert len(found) == 1 and made == "<{}|{}>".format(*found[0])
    assert slackbot.unescape(found[0][0]).replace("%7C", "|") == url
    assert slackbot.unescape(found[0][1]) == label


# ---- messages

@pytest.mark.parametrize("answer, public, expected", [
    ("Hi", False, {"response_type": "ephemeral", "text": "Hi"}),
    ("Hi", True, {"response_type": "in_channel", "text": "Hi"}),
    ({"text": "Hi"}, False, {"response_type": "ephemeral", "text": "Hi"}),
    ({"text": "Hi"}, True, {"response_type": "in_channel", "text": "Hi"}),
    ({"text": "Hi", "response_type": "in_channel"}, False,
     {"response_type": "in_channel", "text": "Hi"}),
    ({"text": "Hi", "response_type": "ephemeral"}, True,
     {"response_type": "ephemeral", "text": "Hi"}),
    ({"blocks": [{"type": "divider"}], "replace_original": True}, False,
     {"response_type": "ephemeral", "blocks": [{"type": "divider"}], "replace_original": True})])
def test_an_answer_becomes_a_message(answer, public, expected):
    given = json.dumps(answer)
    assert slackbot.message(answer, public) == expected
    assert json.dumps(answer) == given, "the handler's own dict is left alone"


DIVIDER = {"blocks": [{"type": "divider"}]}


@pytest.mark.parametrize("answer, expected", [
    *[(answer, True) for answer in (None, "", " \n\t", {}, {"text": ""}, {"text": None},
                                    {"blocks": []}, {"text": "", "blocks": [], "thread_ts": ""})],
    *[(answer, False) for answer in ("Hi", {"text": "Hi"}, {"text": "Hi", "blocks": []}, DIVIDER,
                                     {"text": "", **DIVIDER}, {"delete_original": True},
                                     {"attachments": [DIVIDER]}, 0, False, [], (), b"")]],
    ids=repr)
def test_an_answer_is_empty_if_nothing_is_in_it(answer, expected):
    assert slackbot.is_empty(answer) == expected


@pytest.mark.parametrize("answer", [None, 5, 0, False, True, 1.5, b"Hi", [], ["Hi"], ("Hi",),
                                    {"Hi"}, object], ids=repr)
def test_an_answer_of_another_type_is_a_type_error(answer):
    with pytest.raises(TypeError, match=type(answer).__name__):
        slackbot.message(answer)


def test_a_text_keeps_within_13000_characters():
    assert slackbot.message("x" * 13_000)["text"] == "x" * 13_000
    assert len(slackbot.message("x" * 13_001)["text"]) <= 13_000


@pytest.mark.parametrize("before", range(5))
def test_a_text_that_is_too_long_is_never_cut_within_an_entity(before):
    text = slackbot.message("x" * before + slackbot.escape("&" * 5000))["text"]
    assert re.fullmatch("x*(&amp;)+…", text) and 12_990 < len(text) <= 13_000


# ---- in the terminal

def mrkdwn(text):
    return {"type": "mrkdwn", "text": text}


PLAIN = [
    ({"text": "Hi"}, "Hi"), ({"text": ""}, ""), ({}, ""),
    ({"text": "&lt;b&gt; &amp;amp;"}, "<b> &amp;"),
    ({"text": "<https://a.example/?a=1&amp;b=2|A &amp; B>"}, "A & B (https://a.example/?a=1&b=2)"),
    ({"text": "<https://a.example>, <@U1> <!here>"}, "https://a.example, @U1 !here"),
    ({"text": "&lt;https://a.example|b&gt;"}, "<https://a.example|b>"),
    ({"text": "short", "blocks": [{"type": "section", "text": mrkdwn("whole")}]}, "whole"),
    ({"text": "short", "blocks": []}, "short"),
    ({"blocks": [{"type": "header", "text": {"type": "plain_text", "text": "Head"}},
                 {"type": "divider"},
                 {"type": "section", "text": mrkdwn("one"), "fields": [mrkdwn("two"),
                                                                       mrkdwn("three")]},
                 {"type": "context", "elements": [mrkdwn("four &amp; five")]}]},
     "Head\none\ntwo\nthree\nfour & five"),
    ({"blocks": [{"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [
        {"type": "text", "text": "deep"}]}]}]}, "deep")]


@pytest.mark.parametrize("answer, text", PLAIN)
def test_a_message_is_readable_in_a_terminal(answer, text):
    assert slackbot.plain(answer) == text


TABLE = {"type": "data_table", "caption": "open issues", "rows": [
    [slackbot.cell("Key"), slackbot.cell("Summary"), slackbot.cell("Votes")],
    [slackbot.link_cell("https://a.example/browse/A-1", "A-1"), slackbot.cell("<b> & so"),
     slackbot.value_cell("1,234")],
    [slackbot.link_cell("https://a.example/browse/A-10", "A-10"), slackbot.cell(""),
     slackbot.value_cell("7")]]}


@pytest.mark.parametrize("width, lines", [
    (80, ["Key   Summary   Votes", "A-1   <b> & so  1,234", "A-10  –         7"]),
    (17, ["Key   Summary   V", "A-1   <b> & so  1", "A-10  –         7"]),
    (8, ["Key   Su", "A-1   <b", "A-10  –"])])
def test_a_table_is_aligned_columns_cut_to_the_width_of_the_terminal(monkeypatch, width, lines):
    monkeypatch.setenv("COLUMNS", str(width))
    assert slackbot.plain({"text": "short", "blocks": [TABLE]}).split("\n") == lines


def test_a_chart_is_a_bar_a_line():
    chart = slackbot.bar_chart("t", {"APP 2.3": [2, 1, 1], "x" * 20: [0, 0, 0]},
                               ["done", "in progress", "to do"])
    assert slackbot.plain({"blocks": [chart]}).split("\n") == [
        "APP 2.3              ██████████▓▓▓▓▓░░░░░ 2 done · 1 in progress · 1 to do",
        "xxxxxxxxxxxxxxxxxxxx                      0 done · 0 in progress · 0 to do"]


# ---- tables and charts

@pytest.mark.parametrize("text, expected", [
    ("7", {"type": "raw_number", "value": 7, "text": "7"}),
    ("1,234", {"type": "raw_number", "value": 1234, "text": "1,234"}),
    ("?", {"type": "raw_text", "text": "?"}), ("", {"type": "raw_text", "text": "–"}),
    ("more than 5,000", {"type": "raw_text", "text": "more than 5,000"})])
def test_a_cell_holds_a_number_where_the_text_is_one(text, expected):
    assert slackbot.value_cell(text) == expected


@pytest.mark.parametrize("text, expected", [
    ("<!channel> & *all*", "<!channel> & *all*"), ("", "–"), ("\n\0", "–"), ("a\nb", "a b"),
    ("x" * 41, "x" * 39 + "…")])
def test_a_cell_holds_raw_text_on_one_line_and_is_never_empty(text, expected):
    assert slackbot.cell(text) == {"type": "raw_text", "text": expected}


@pytest.mark.parametrize("count, characters, held", [
    (1, 1, 1), (100, 1, 100), (101, 1, 100), (5, 1999, 5), (5, 2000, 4), (1, 9995, 1)])
def test_a_table_holds_as_many_rows_as_slack_takes_and_says_how_many(count, characters, held):
    rows = [[slackbot.cell("x" * characters, 10_000)] for _ in range(count)]
    made, number = slackbot.data_table("c", ["title"], rows)
    assert number == held == len(made["rows"]) - 1


def test_categories_of_a_chart_have_at_most_20_characters_and_each_comes_once():
    chance, taken = random.Random(0), {}
    for number in range(300):
        name = "Checkout for tablets"[:chance.choice([1, 16, 19, 20])] + "🚀" * chance.randrange(9)
        label = slackbot.short_label(name, taken)
        assert label not in taken and 1 <= len(label) <= 20
        assert label == name or len(name) > 20 or name in taken
        taken[label] = number


@pytest.mark.parametrize("blocks, kept", [
    ([{"type": "divider"}, TABLE], ["divider"]), ([TABLE, {"type": "divider"}], ["divider"]),
    ([{"type": "data_visualization"}, {"type": "section"}, TABLE], ["section"])])
def test_a_message_can_go_without_its_data_blocks(blocks, kept):
    given = {"text": "Hi", "blocks": blocks, "replace_original": True}
    body = slackbot.to_json(given)
    assert slackbot.has_data_blocks(body)
    left = slackbot.without_data_blocks(body)
    assert not slackbot.has_data_blocks(left)
    assert {**json.loads(left), "blocks": kept} == {**given, "blocks": kept}
    assert [block["type"] for block in json.loads(left)["blocks"]] == kept


@pytest.mark.parametrize("said", ['"data_table"', "a data_table", '{"type": "data_table"}'])
def test_text_about_data_blocks_is_no_data_block(said):
    assert not slackbot.has_data_blocks(slackbot.to_json({"text": said}))


def test_nothing_to_say_has_no_data_blocks():
    assert not slackbot.has_data_blocks(None)
