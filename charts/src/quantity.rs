//! Memory and processors as Kubernetes writes them: `256Mi`, `0.5`, `500m`.

use pipelines::definition::{ValueError, quote};
use serde_json::Value;

/// The least memory that the container engine accepts.
const MEMORY_MIN_BYTES: u64 = 6 << 20;
/// The most memory that is taken for meant: 64 TiB.
const MEMORY_MAX_BYTES: u64 = 64 << 40;
/// The most processors that are taken for meant, in thousandths.
const CPU_MAX_MILLI: u32 = 1_024_000;

const UNITS: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Bytes of a quantity such as `256Mi`, `1G` or `268435456`.
pub(crate) fn memory_bytes(value: &Value) -> Result<u64, ValueError> {
    const HELP: &str = "write a whole number and a unit, such as `256Mi` or `1Gi`";
    let text = text(value);
    let (number, size) = UNITS
        .iter()
        .find_map(|(unit, size)| text.strip_suffix(unit).map(|number| (number, *size)))
        .unwrap_or((&text, 1));
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let bytes = number.parse::<u64>().ok().filter(|_| digits).and_then(|number| number.checked_mul(size));
    match bytes {
        Some(bytes) if (MEMORY_MIN_BYTES..=MEMORY_MAX_BYTES).contains(&bytes) => Ok(bytes),
        Some(_) => Err(ValueError::new(
            format!("{} is no amount of memory for a container", quote(&text)),
            format!("{HELP}, from 6Mi to 64Ti"),
        )),
        None => Err(ValueError::new(format!("{} is not an amount of memory", quote(&text)), HELP)),
    }
}

/// Thousandths of a processor of a quantity such as `0.5`, `2` or `500m`.
pub(crate) fn cpu_milli(value: &Value) -> Result<u32, ValueError> {
    let text = text(value);
    let bad = || {
        ValueError::new(
            format!("{} is not an amount of processors", quote(&text)),
            "write a number such as `0.5` or `2`, or thousandths such as `500m`",
        )
    };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let milli = if let Some(milli) = text.strip_suffix('m').filter(|milli| digits(milli)) {
        milli.parse::<u32>().ok()
    } else {
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
        let good = digits(whole) && digits(fraction) && !fraction.is_empty() && fraction.len() <= 3;
        let whole = whole.parse::<u32>().ok().filter(|_| good).and_then(|whole| whole.checked_mul(1_000));
        whole.zip(format!("{fraction:0<3}").parse::<u32>().ok()).and_then(|(whole, part)| whole.checked_add(part))
    };
    milli.filter(|milli| (1..=CPU_MAX_MILLI).contains(milli)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn memory_has_decimal_and_binary_units() {
        for (text, bytes) in [("64Mi", 64 << 20), ("1Gi", 1 << 30), ("100M", 100_000_000), ("7000k", 7_000_000)] {
            assert_eq!(memory_bytes(&json!(text)), Ok(bytes), "{text}");
        }
        assert_eq!(memory_bytes(&json!(268_435_456)), Ok(256 << 20));
        for bad in ["", "Mi", "1.5Gi", "-1Gi", "1", "1Mi", "99999999999Ti", "1 Gi", "1GB", "+9Gi"] {
            assert!(memory_bytes(&json!(bad)).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn processors_are_counted_in_thousandths() {
        for (value, milli) in [(json!(0.5), 500), (json!(2), 2_000), (json!("250m"), 250), (json!("1.25"), 1_250)] {
            assert_eq!(cpu_milli(&value), Ok(milli), "{value}");
        }
        for bad in [json!(0), json!(-1), json!(""), json!("m"), json!("0.0001"), json!("1e3"), json!(1e9), json!("1.")]
        {
            assert!(cpu_milli(&bad).is_err(), "{bad} was taken");
        }
    }
}
