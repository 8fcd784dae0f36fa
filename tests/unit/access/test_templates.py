"""What is wrong with a template is told in words for those who write it."""

import pytest
from pydantic import ValidationError

from coder.access import templates


def test_what_a_setting_is_not_and_what_is_missing():
    with pytest.raises(ValidationError) as caught:
        templates.settings_of("docker", {"flavour": "vanilla"})
    assert dict(templates.problems(caught.value, "settings")) == {
        "settings.image": "Field required",
        "settings.flavour": "There is no such field.",
    }
