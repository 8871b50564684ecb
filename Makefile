# The verbs of the project. Long recipes live in scripts/.
.PHONY: parts

# Installs and builds the real parts that the tests use, once (about 12 minutes from nothing).
parts:
	@scripts/parts.sh
