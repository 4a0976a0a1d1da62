//! Medians and ratios. The figure that is compared is the median of the ratios of each round, not the ratio of medians: what slowed the
//! machine down in one round slowed both systems, and falls out.

/// The middle of some values and how far they spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median: of an even number the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many there were.
    pub count: usize,
}

impl Spread {
    /// Of these values; none if there are none, or if one is not a number.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Spread {
            median,
            min: values[0],
            max: values[values.len() - 1],
            count: values.len(),
        })
    }

    /// All three divided by the same.
    pub fn over(self, by: f64) -> Spread {
        Spread {
            median: self.median / by,
            min: self.min / by,
            max: self.max / by,
            count: self.count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let median = |values: &[f64]| Spread::of(values.iter().copied()).map(|spread| spread.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), Some(3.0));
        assert_eq!(median(&[1.0, f64::NAN]), None);
        assert_eq!(median(&[1.0, 1.0 / 0.0]), None);
    }

    #[test]
    fn the_spread_is_kept() {
        let spread = Spread::of([2.0, 8.0, 4.0]).expect("values");
        assert_eq!(
            (spread.min, spread.median, spread.max, spread.count),
            (2.0, 4.0, 8.0, 3)
        );
        assert_eq!(
            spread.over(2.0),
            Spread {
                median: 2.0,
                min: 1.0,
                max: 4.0,
                count: 3
            }
        );
    }
}
