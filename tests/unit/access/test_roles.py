"""Roles: what the table must never say, whatever is written into it."""

from hypothesis import given
from hypothesis import strategies as st

from coder.access import roles
from coder.access.roles import AUDITOR, MEMBER, OWNER, USER_ADMIN, Action, Decision, Resource

NAMES = st.sampled_from(sorted(roles.ANYWHERE))
SETS = st.frozensets(NAMES | st.text(max_size=8))
ACTIONS, RESOURCES = st.sampled_from(Action), st.sampled_from(Resource)


@given(SETS, NAMES, ACTIONS, RESOURCES, st.booleans())
def test_a_further_role_never_takes_a_right_away(held, further, action, resource, own):
    if roles.allowed(held, action, resource, own=own):
        assert roles.allowed(held | {further}, action, resource, own=own)


@given(SETS, ACTIONS, RESOURCES)
def test_what_one_may_do_with_everybodys_things_one_may_do_with_ones_own(held, action, resource):
    if roles.allowed(held, action, resource):
        assert roles.allowed(held, action, resource, own=True)


@given(st.frozensets(st.text(max_size=12).filter(lambda name: name not in roles.ANYWHERE)), ACTIONS, RESOURCES)
def test_words_that_are_no_roles_give_nothing(held, action, resource):
    assert not roles.allowed(held, action, resource)
    assert roles.unknown(held) == sorted(held)


@given(SETS, ACTIONS, RESOURCES, st.booleans())
def test_a_thing_is_hidden_exactly_from_those_who_may_not_read_it(held, action, resource, own):
    decision = roles.decide(held, action, resource, own=own)
    assert (decision is Decision.ALLOWED) == roles.allowed(held, action, resource, own=own)
    if decision is not Decision.ALLOWED:
        assert (decision is Decision.HIDDEN) != roles.allowed(held, Action.READ, resource, own=own)


@given(SETS.filter(lambda held: OWNER not in held), ACTIONS, st.sampled_from([Resource.WORKSPACE, Resource.TOKEN]))
def test_only_owners_reach_what_others_work_with(held, action, resource):
    assert not roles.allowed(held, action, resource)


@given(SETS, ACTIONS)
def test_nobody_starts_or_changes_a_session_of_somebody_else(held, action):
    if action in {Action.CREATE, Action.UPDATE, Action.CONNECT}:
        assert not roles.allowed(held, action, Resource.SESSION)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.frozensets(NAMES)), max_size=20))
def test_no_chain_of_grants_makes_an_owner_where_there_is_none(steps):
    held = [frozenset({USER_ADMIN}), frozenset({AUDITOR}), frozenset({USER_ADMIN, AUDITOR}), frozenset()]
    for by, to, wanted in steps:
        may = roles.allowed(held[by], Action.UPDATE, Resource.USER) and roles.may_assign(held[by], wanted)
        if may and roles.may_act_on(held[by], held[to]):
            held[to] = wanted - {MEMBER}
    assert not any(OWNER in each for each in held)


@given(SETS, SETS)
def test_nobody_changes_an_account_that_has_more_than_they_could_give(mine, theirs):
    if OWNER in theirs:
        assert roles.may_act_on(mine, theirs) == (OWNER in mine and not roles.unknown(theirs))


def test_the_table_names_every_role_and_what_the_rooms_rely_on():
    assert roles.DISPLAY.keys() == roles.ANYWHERE.keys()
    for resource in Resource:
        assert roles.allowed([OWNER], Action.READ, resource)
    assert roles.allowed([AUDITOR], Action.READ, Resource.AUDIT_LOG)
    assert not roles.allowed([AUDITOR, USER_ADMIN], Action.DELETE, Resource.AUDIT_LOG)
    assert not roles.allowed([MEMBER], Action.READ, Resource.AUDIT_LOG, own=True)
