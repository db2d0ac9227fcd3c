"""What a site demands of secure sums, `[secure_sums]` of its `site.toml`, held against jobs, peers and sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hanse.aggregators.hidden_sum import HidesInGroups, hidden_sum_of
from hanse.aggregators.homomorphic_sum import HomomorphicSum
from hanse.core.units import plural
from hanse.federation.client.peers import Peers
from hanse.federation.client.policy import Cohort
from hanse.federation.client.site_config import SecureSumsTable
from hanse.federation.identity.keys import fingerprint
from hanse.jobs.parts import JobParts
from hanse.rounds.selection import cohort_size


class SumPolicy:
    """A site's own rules for what hides its updates; nothing of it relies on the coordinator.

    Args:
      table: `[secure_sums]` of its `site.toml`.
      site: The site's name.
    """

    def __init__(self, table: SecureSumsTable, *, site: str) -> None:
        self._table = table
        self._site = site

    @property
    def min_cohort(self) -> int:
        """Least number of clients in a sum that the site lets be opened."""
        return self._table.min_cohort

    def refusals(self, parts: JobParts, cohort: Cohort) -> list[str]:
        """Why the site does not do this job; empty where it does.

        Args:
          parts: The job's.
          cohort: How many take part, as far as that is known.
        """
        table, aggregator = self._table, parts.pipeline.aggregator
        if not parts.pipeline.hides_replies:
            if not table.required:
                return []
            return [
                "the job shows the coordinator each client's update, and this site takes part in jobs alone that hide "
                'them, as aggregator = { use = "secure_sum" } does'
            ]
        buffered = parts.federation.stragglers == "buffer"
        found = self._trusting(hidden_sum_of(aggregator), buffered) if table.active else []
        if 0 < cohort.sites < table.min_sites:
            found.append(
                f"the run has {plural(cohort.sites, 'site')}; this site adds its updates to sums of at least "
                f"{table.min_sites}"
            )
        selector = parts.settings.cohort
        most = [n for n in (cohort.clients, cohort_size(selector), len(getattr(selector, "clients", ()))) if n]
        if most and isinstance(aggregator, HidesInGroups) and aggregator.smallest(min(most)) < table.min_cohort:
            found.append(
                f"a group of a round's clients has {plural(aggregator.smallest(min(most)), 'client')}; this site lets "
                f"no sum of fewer than {table.min_cohort} be opened"
            )
        elif most and min(most) < table.min_cohort:
            found.append(
                f"a round has {plural(min(most), 'client')}; this site lets no sum of fewer than {table.min_cohort} be "
                "opened"
            )
        return found

    def _trusting(self, aggregator: object, buffered: bool) -> list[str]:
        """Why a job's sums do not hold against a coordinator that lies."""
        if buffered:
            return [
                'the job sums updates of several rounds (stragglers = "buffer"), and a coordinator that asks each '
                "client something else in a round of its own could tell them apart; this site asks for sums that hold "
                "against one that lies (active = true)"
            ]
        if isinstance(aggregator, HomomorphicSum):
            if self._table.only_peers:
                return []
            return [
                "the job's clients share a key, so a coordinator that makes up one of them reads every update; with "
                "active = true this site takes part in such sums with sites alone that it knows (only_peers = true)"
            ]
        if getattr(aggregator, "active", False):
            return []
        return [
            f"the job's `{type(aggregator).__name__}` hides updates from a coordinator that follows the rules, and "
            "this site asks for sums that hold against one that lies (active = true)"
        ]

    def objections(self, peers: Peers) -> list[str]:
        """Why the site does not take part with these; empty where it does."""
        known = self._table.peers
        named = {key: site for site, key in known.items()}
        found = []
        for site, key in peers.keys.items():
            if site in known and known[site] != key:
                found.append(
                    f"the coordinator says that `{site}` has the key {fingerprint(key)}; this site knows it by "
                    f"{fingerprint(known[site])}"
                )
            elif named.get(key, site) != site:
                found.append(f"the coordinator calls `{site}` what this site knows as `{named[key]}`, by its key")
            elif self._table.only_peers and site not in known and site != self._site:
                found.append(f"`{site}` takes part, with the key {fingerprint(key)}, which this site does not know")
        return found

    def suits(self, peers: Peers) -> Callable[[Sequence[str]], str]:
        """What says why a sum may not be of these clients: strangers, or of too few sites; empty where it may."""

        def problem(clients: Sequence[str]) -> str:
            sites = set()
            for client in clients:
                site = peers.site_of(client)
                if site is None:  # whose signature need not be looked at, where it is nobody's neighbour
                    return f"`{client[:40]}` is no client of this run"
                sites.add(site)
            if len(sites) >= self._table.min_sites:
                return ""
            return f"they are of {plural(len(sites), 'site')}; `{self._site}` adds to sums of {self._table.min_sites}"

        return problem
