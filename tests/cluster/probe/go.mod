module panosc.eu/tests/cluster/probe

go 1.25.0
