# The verbs of the project; long recipes live in scripts/.
.PHONY: demo test bench soak mutants fmt parts evidence

# Shows the whole way, from git push to live traffic, on this machine.
demo:
	@scripts/demo.sh $(ARGS)

# Every check and test, then the table of what was shown. One step: make test STEPS=unit
test:
	@scripts/test.sh $(STEPS)

# Measures the release build beside nginx and skopeo, and makes target/bench/summary.json (the build comes on top).
bench:
	@scripts/bench.sh

# Runs the long tests, or one part of them: make soak PART=fuzz. Can be stopped, and goes on where it was.
soak:
	@scripts/soak.sh $(PART)

# Changes the domain in small ways and sees whether the tests notice (hours; can be stopped, and goes on where it was).
mutants:
	@scripts/parts.sh cargo-mutants
	@scripts/mutants.sh

fmt:
	@. scripts/path.sh && cargo fmt --all

# Installs and builds the real parts that the tests use, once (about 14 minutes from nothing).
parts:
	@scripts/parts.sh

# Writes what the last `make test` has shown into the table of README.md.
evidence:
	@. scripts/path.sh && cargo run --quiet --locked --package tests --bin evidence -- write
