# Terminals of JupyterLab are login shells, and /etc/profile has just set PATH anew.
PATH=/opt/panosc/bin:$PATH
