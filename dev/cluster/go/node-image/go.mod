module panosc.eu/dev/cluster/node-image

go 1.25.0
