"""Keys of a site file against what a cluster has."""

import pytest

from bingo.launch.cluster.facts import NODE_KEYS, parse_table
from bingo.launch.cluster.site import Site
from bingo.launch.cluster.site_fit import node_fits, site_findings
from tests.support.cluster_facts import NODES, facts

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("site", "says"),
    [
        (Site(partition="hihg"), "does not exist; did you mean 'high'?"),
        (Site(partition="high", time_min=1500), "time_min = 1500 would wait for ever"),
        (Site(partition="high", nodes=2), "partition high allows 1 per job"),
        (Site(nodes=2), "1 of the 1 usable nodes of partition low"),
        (Site(gpus_per_node=4), "4 GPUs; 0 of the 1 usable nodes"),
        (Site(ranks_per_node=3), "3 CPUs; 0 of"),
        (Site(mem_gb=16), "16 GB; 0 of"),
        (Site(qos="scavange"), "did you mean 'scavenge'?"),
        (Site(qos="scavenge", time_min=90), "QOS scavenge does not allow time_min = 90"),
        (Site(qos="urgent"), "you may not use QOS 'urgent'"),
        (Site(account="visoin"), "account 'visoin' is not one of yours; did you mean 'vision'?"),
        (Site(partition="other", time_min=9, qos="normal"), "does not let 'normal' in"),
        (Site(partition="other", time_min=9), "takes no jobs now"),
    ],
)
def test_site_keys_that_do_not_fit(site: Site, says: str) -> None:
    found = site_findings(facts(AccountingStorageEnforce="associations,limits,qos"), site)
    assert {f.answer for f in found} == {"no"}
    assert any(says in f.says for f in found), [f.says for f in found]


def test_site_keys_that_fit() -> None:
    assert [f.answer for f in site_findings(facts(), Site(gpus_per_node=2, ranks_per_node=2, mem_gb=7))] == ["yes"]
    node = parse_table(NODES, NODE_KEYS)[-1]
    assert node_fits(node, Site(gres="gpu:h100:8", constraint="fast&ib"))
    assert not node_fits(node, Site(gres="gpu:a100:8"))
    assert not node_fits(node, Site(constraint="slow"))
