"""The rows and columns of the robustness table: attacks with their settings, and ways to aggregate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hanse.core.errors import SettingError, did_you_mean
from hanse.jobs.registry import NAMES, find, known_names

MEAN = "mean"
"""The column that defends against nothing."""

NONE = "none"
"""The row without an attack."""


@dataclass(frozen=True, kw_only=True)
class AttackEntry:
    """One row.

    Args:
      name: On the command line and in the table.
      attack: The job's table `attack`, without `members`; empty for none.
      count: How many attack; None for as many as the defence is told.
      backdoor: Whether its success is measured, too.
    """

    name: str
    attack: Mapping[str, Any]
    count: int | None = None
    backdoor: bool = False


@dataclass(frozen=True, kw_only=True)
class RuleEntry:
    """One column.

    Args:
      name: On the command line and in the table: a rule, or a mixer and a rule with ``+`` between them.
      rule: The aggregator's `rule`; empty for the plain mean.
      mixing: The aggregator's `mixing`; empty for none.
    """

    name: str
    rule: Mapping[str, Any] = field(default_factory=dict)
    mixing: str = ""

    def aggregator(self, share: float) -> dict[str, Any]:
        """The job's table `pipeline.aggregator`, told that this share of the clients attacks."""
        if not self.rule:
            return {"use": MEAN}
        mixing = {"mixing": {"use": self.mixing}} if self.mixing else {}
        return {"use": "robust", "rule": dict(self.rule), "attackers": share, **mixing}


_ATTACKS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("sign_flip", {"scale": 5.0}),
    ("scaled", {"factor": -10.0}),
    ("gaussian_noise", {"stddev": 2.0}),
    ("alie", {"z": 12.0}),
    ("ipm", {"epsilon": 10.0}),
    ("fang", {}),
    ("min_max", {"perturbation": "unit"}),
    ("label_flip", {"boost": 5.0}),
    ("noisy_labels", {"share": 1.0, "boost": 10.0}),
    ("free_rider", {"noise": 1.0}),
)
_MIXED = ("nearest_neighbours+multi_krum", "nearest_neighbours+trimmed_mean")
_RULE_SETTINGS: Mapping[str, Mapping[str, Any]] = {"centred_clipping": {"radius": 0.5}}


def attack_entries(trigger: Mapping[str, Any]) -> dict[str, AttackEntry]:
    """All rows by name but the one without an attack: Hanse's attacks, then those of other packages as they come.

    Args:
      trigger: Settings of the backdoors' trigger, which has to suit the data.
    """
    door: tuple[tuple[str, str, Mapping[str, Any], int | None], ...] = (
        ("backdoor", "backdoor", {}, None),
        ("model_replacement", "model_replacement", {}, None),
        ("one_model_replacement", "model_replacement", {"boost": 10.0}, 1),
        ("distributed_backdoor", "distributed_backdoor", {"boost": 3.0}, None),
    )
    found = [AttackEntry(name=name, attack={"use": name, **settings}) for name, settings in _ATTACKS]
    found += [
        AttackEntry(name=name, attack={"use": use, **trigger, **settings}, count=count, backdoor=True)
        for name, use, settings, count in door
    ]
    used = {entry.attack["use"] for entry in found}
    found += [AttackEntry(name=name, attack={"use": name}) for name in known_names("attack") if name not in used]
    return {entry.name: entry for entry in found}


def chosen_attacks(names: Sequence[str] | None, trigger: Mapping[str, Any]) -> tuple[AttackEntry, ...]:
    """The rows, that without an attack first; all where none is named.

    Raises:
      SettingError: There is no such attack.
    """
    known = attack_entries(trigger)
    for name in names or ():
        if name not in (*known, NONE):
            raise SettingError("--attacks", f"there is no attack called `{name}`", hint=did_you_mean(name, known))
    wanted = known if names is None else dict.fromkeys(name for name in names if name != NONE)
    return (AttackEntry(name=NONE, attack={}), *(known[name] for name in wanted))


def chosen_rules(names: Sequence[str] | None) -> tuple[RuleEntry, ...]:
    """The columns, the plain mean first; where none is named, all rules, and some behind mixing.

    `average` is left out unless it is named: it is the plain mean again.

    Raises:
      SettingError: There is no such rule or mixer.
    """
    every = [name for name in NAMES["rule"] if name != "average"]
    wanted = dict.fromkeys([*every, *_MIXED] if names is None else names)
    return (RuleEntry(name=MEAN), *(_rule(name) for name in wanted if name != MEAN))


def _rule(name: str) -> RuleEntry:
    mixing, plus, rule = name.rpartition("+")
    known = known_names("rule")
    if rule not in known and ":" not in rule:
        hint = did_you_mean(rule, [MEAN, *known])
        raise SettingError("--rules", f"there is no rule called `{rule}`", hint=hint)
    mixers = known_names("mixer")
    if plus and mixing not in mixers:
        raise SettingError("--rules", f"there is no mixer called `{mixing}`", hint=did_you_mean(mixing, mixers))
    find("rule", rule, where="--rules")
    return RuleEntry(name=name, rule={"use": rule, **_RULE_SETTINGS.get(rule, {})}, mixing=mixing)
