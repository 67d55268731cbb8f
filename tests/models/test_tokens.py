"""Text to tokens, with white space made visible."""

import pytest

from tests.tiny import TEXT, tiny_model
from vaultlab.errors import NoteError

CHAT = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[a]{% endif %}"


@pytest.fixture
def model():  # type: ignore[no-untyped-def]
    return tiny_model("llama")


def test_white_space_is_visible(model) -> None:  # type: ignore[no-untyped-def]
    tokens = model.tokens("The cat sat.\n\tShe  said")
    assert "".join(tokens.strings) == "The·cat·sat.↵⇥She··said"
    assert tokens.strings[1] == "·cat"
    assert tokens.ids.tolist() == model.tokenizer("The cat sat.\n\tShe  said").input_ids


def test_every_token_knows_where_it_stands(model) -> None:  # type: ignore[no-untyped-def]
    tokens = model.tokens(TEXT)
    assert [TEXT[a:b].replace(" ", "·").replace("\n", "↵") for a, b in tokens.spans] == list(tokens.strings)


def test_a_beginning_is_added_once_and_only_if_asked_for(model) -> None:  # type: ignore[no-untyped-def]
    own, with_bos = model.tokens("The cat"), model.tokens("The cat", bos=True)
    assert with_bos.strings == ("<bos>", *own.strings)
    assert with_bos.spans[0] == (0, 0)
    assert model.tokens("<bos>The cat", bos=True).strings == with_bos.strings
    model.tokenizer.bos_token = None
    try:
        with pytest.raises(NoteError, match="no token that begins"):
            model.tokens("The cat", bos=True)
    finally:
        model.tokenizer.bos_token = "<bos>"


def test_a_template_makes_the_text_the_users_turn(model) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NoteError, match="no chat template"):
        model.tokens("The cat", template="chat")
    with pytest.raises(NoteError, match="without a template"):
        model.tokens("The cat", system="Be brief.")
    model.tokenizer.chat_template = CHAT
    try:
        tokens = model.tokens("The cat", template="chat", system="Be brief.")
    finally:
        model.tokenizer.chat_template = None
    assert tokens.text == "[system] Be brief.\n[user] The cat\n[a]"
    assert "".join(tokens.strings) == "[system]·Be·brief.↵[user]·The·cat↵[a]"


def test_one_token_is_tried_with_a_leading_space(model) -> None:  # type: ignore[no-untyped-def]
    assert model.token_strings([model.token_id("cat")]) == ("·cat",)
    assert model.token_id(" cat") == model.token_id("cat")
    assert model.token_strings([model.token_id("The")]) == ("The",)
    with pytest.raises(NoteError, match=r"`capitalist` is not one token.*·capital is t"):
        model.token_id("capitalist")
    with pytest.raises(NoteError, match="there is none"):
        model.token_id("")


def test_an_empty_text_is_refused(model) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NoteError, match="empty"):
        model.tokens("")
