//! Three kinds of charts: bars with bounds, groups of bars, lines, and single points in rows. They know nothing of what is measured.

use crate::svg::{Scale, Svg};
use crate::table::number;

const WIDTH: f64 = 860.0;
/// Title and legend.
const TOP: f64 = 72.0;
const BAR: f64 = 15.0;

/// A bar with the bounds that it is held against.
#[derive(Clone, Debug)]
pub struct Bar {
    /// To its left.
    pub name: String,
    /// Its length, and what is written at its end.
    pub value: f64,
    /// How far single values lie apart.
    pub range: [f64; 2],
    /// Must not be longer.
    pub required: f64,
    /// Should not be longer.
    pub aim: f64,
}

/// Horizontal bars from 0 to `most`, with marks for what is required and aimed at.
pub fn bounded_bars(title: &str, note: &str, most: f64, bars: &[Bar]) -> String {
    let row = 26.0;
    let height = TOP + row * bars.len() as f64 + 36.0;
    let mut svg = Svg::new(WIDTH, height, title);
    svg.text(16.0, 46.0, "soft", note);
    svg.line("required", (WIDTH - 206.0, 36.0), (WIDTH - 206.0, 50.0));
    svg.text(WIDTH - 200.0, 47.0, "soft", "required");
    svg.line("aim", (WIDTH - 126.0, 36.0), (WIDTH - 126.0, 50.0));
    svg.text(WIDTH - 120.0, 47.0, "soft", "aim");
    let left = 350.0;
    let scale = Scale::linear([0.0, most], [left, WIDTH - 70.0]);
    let bottom = height - 30.0;
    vertical_grid(&mut svg, &scale, TOP - 8.0, bottom);
    for (k, bar) in bars.iter().enumerate() {
        let top = TOP + row * k as f64;
        let middle = top + BAR / 2.0;
        svg.text(left - 10.0, middle + 4.5, "end", &bar.name);
        svg.rect("s0 bar", (left, top), (scale.at(bar.value) - left, BAR));
        svg.line(
            "axis",
            (scale.at(bar.range[0]), middle),
            (scale.at(bar.range[1]), middle),
        );
        for (class, bound) in [("required", bar.required), ("aim", bar.aim)] {
            svg.line(
                class,
                (scale.at(bound), top - 4.0),
                (scale.at(bound), top + BAR + 4.0),
            );
        }
        svg.text(WIDTH - 60.0, middle + 4.5, "", &number(bar.value));
    }
    svg.finish()
}

/// Groups of horizontal bars: one group a row, one bar a series; a series may lack a value.
pub fn grouped_bars(title: &str, note: &str, series: &[&str], rows: &[(String, Vec<Option<f64>>)]) -> String {
    let shown = |values: &[Option<f64>]| values.iter().flatten().count() as f64;
    let heights: f64 = rows.iter().map(|(_, values)| shown(values) * BAR + 12.0).sum();
    let height = TOP + heights + 30.0;
    let mut svg = Svg::new(WIDTH, height, title);
    svg.text(16.0, 46.0, "soft", note);
    legend(&mut svg, series);
    let most = rows
        .iter()
        .flat_map(|(_, values)| values.iter().flatten())
        .copied()
        .fold(0.0, f64::max);
    let left = 350.0;
    let scale = Scale::linear([0.0, most.max(f64::MIN_POSITIVE)], [left, WIDTH - 70.0]);
    vertical_grid(&mut svg, &scale, TOP - 4.0, height - 30.0);
    let mut top = TOP;
    for (name, values) in rows {
        svg.text(left - 10.0, top + shown(values) * BAR / 2.0 + 4.5, "end", name);
        for (k, value) in values.iter().enumerate() {
            let Some(value) = *value else { continue };
            let end = scale.at(value);
            svg.rect(&format!("s{k} bar"), (left, top + 1.0), (end - left, BAR - 2.0));
            svg.text(end + 6.0, top + BAR - 3.0, "", &number(value));
            top += BAR;
        }
        top += 12.0;
    }
    svg.finish()
}

/// Lines over a logarithmic axis; upwards logarithmic, too.
pub fn lines(title: &str, note: &str, across: &str, series: &[(&str, Vec<(f64, f64)>)]) -> String {
    let height = 380.0;
    let mut svg = Svg::new(WIDTH, height, title);
    svg.text(16.0, 46.0, "soft", note);
    let names: Vec<&str> = series.iter().map(|(name, _)| *name).collect();
    legend(&mut svg, &names);
    let points = || series.iter().flat_map(|(_, points)| points);
    let xs = around(points().map(|point| point.0), 1.0);
    let ys = around(points().map(|point| point.1), 1.25);
    let (left, right, bottom) = (70.0, WIDTH - 30.0, height - 56.0);
    let x = Scale::logarithmic(xs, [left, right]);
    let y = Scale::logarithmic(ys, [bottom, TOP]);
    for tick in y.ticks() {
        svg.line("grid", (left, y.at(tick)), (right, y.at(tick)));
        svg.text(left - 8.0, y.at(tick) + 4.5, "soft end", &amount(tick));
    }
    svg.line("axis", (left, bottom), (right, bottom));
    // The places that were measured, not round numbers between them.
    let mut places: Vec<f64> = points().map(|point| point.0).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    for place in places {
        svg.line("axis", (x.at(place), bottom), (x.at(place), bottom + 5.0));
        svg.text(x.at(place), bottom + 20.0, "soft middle", &amount(place));
    }
    svg.text(f64::midpoint(left, right), height - 14.0, "soft middle", across);
    for (k, (_, points)) in series.iter().enumerate() {
        let points: Vec<(f64, f64)> = points
            .iter()
            .map(|point| (x.at(point.0), y.at(point.1)))
            .collect();
        svg.polyline(&format!("s{k} line"), &points);
        for point in points {
            svg.mark(k, point);
        }
    }
    svg.finish()
}

/// Rows of points on a logarithmic axis: every trial of every row is seen.
pub fn dots(title: &str, note: &str, series: &[&str], rows: &[(String, Vec<Vec<f64>>)]) -> String {
    let row = 22.0;
    let height = TOP + rows.len() as f64 * (row * series.len() as f64 + 12.0) + 36.0;
    let mut svg = Svg::new(WIDTH, height, title);
    svg.text(16.0, 46.0, "soft", note);
    legend(&mut svg, series);
    let all = rows
        .iter()
        .flat_map(|(_, series)| series.iter().flatten())
        .copied();
    let left = 250.0;
    let scale = Scale::logarithmic(around(all, 1.3), [left, WIDTH - 40.0]);
    vertical_grid(&mut svg, &scale, TOP - 6.0, height - 32.0);
    let mut top = TOP;
    for (name, series) in rows {
        svg.text(
            left - 14.0,
            top + row * series.len() as f64 / 2.0 + 2.0,
            "end",
            name,
        );
        for (k, values) in series.iter().enumerate() {
            for value in values {
                svg.mark(k, (scale.at(*value), top + row / 2.0));
            }
            top += row;
        }
        top += 12.0;
    }
    svg.finish()
}

fn vertical_grid(svg: &mut Svg, scale: &Scale, top: f64, bottom: f64) {
    for tick in scale.ticks() {
        svg.line("grid", (scale.at(tick), top), (scale.at(tick), bottom));
        svg.text(scale.at(tick), bottom + 18.0, "soft middle", &amount(tick));
    }
}

/// In the upper right corner.
fn legend(svg: &mut Svg, series: &[&str]) {
    let width = |name: &str| name.chars().count() as f64 * 7.5 + 30.0;
    let mut x = WIDTH - 16.0 - series.iter().map(|name| width(name)).sum::<f64>();
    for (k, name) in series.iter().enumerate() {
        svg.mark(k, (x + 8.0, 22.0));
        svg.text(x + 18.0, 26.5, "", name);
        x += width(name);
    }
}

/// The smallest and the largest of values above 0, and some room around them.
fn around(values: impl Iterator<Item = f64>, room: f64) -> [f64; 2] {
    let (least, most) = values
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, 0.0_f64), |(least, most), value| {
            (least.min(value), most.max(value))
        });
    if least >= most {
        let only = if most > 0.0 { most } else { 1.0 };
        return [only / 2.0, only * 2.0];
    }
    [least / room, most * room]
}

/// A round number, short: `64`, `4 k`, `1 M`, `0.5`. Powers of two as such.
fn amount(value: f64) -> String {
    for (unit, name) in [
        (1_048_576.0, "Mi"),
        (1_000_000.0, "M"),
        (1024.0, "Ki"),
        (1000.0, "k"),
    ] {
        if value >= unit && value % unit == 0.0 {
            return format!("{} {name}", value / unit);
        }
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        let shown: Vec<String> = [0.1, 64.0, 1000.0, 4096.0, 20_000.0, 1_048_576.0, 10_000_000.0]
            .map(amount)
            .into();
        assert_eq!(shown, ["0.1", "64", "1 k", "4 Ki", "20 k", "1 Mi", "10 M"]);
    }

    #[test]
    fn room_around_values() {
        assert_eq!(around([2.0, 8.0, 0.0].into_iter(), 2.0), [1.0, 16.0]);
        assert_eq!(around([3.0].into_iter(), 2.0), [1.5, 6.0]);
        assert_eq!(around(std::iter::empty(), 2.0), [0.5, 2.0]);
    }

    #[test]
    fn charts_show_every_value() {
        let bar = |value: f64| Bar {
            name: "n".to_owned(),
            value,
            range: [value, value],
            required: 0.4,
            aim: 0.25,
        };
        let text = bounded_bars("t", "", 1.0, &[bar(0.3), bar(7.0)]);
        assert_eq!(text.matches("s0 bar").count(), 2);
        assert!(
            text.contains(">7.00<"),
            "a bar beyond the axis is cut, its number is not: {text}"
        );

        let rows = [
            ("a".to_owned(), vec![Some(1.0), None]),
            ("b".to_owned(), vec![Some(2.0), Some(3.0)]),
        ];
        let text = grouped_bars("t", "", &["x", "y"], &rows);
        assert_eq!(
            (text.matches("s0 bar").count(), text.matches("s1 bar").count()),
            (2, 1)
        );

        let text = lines(
            "t",
            "",
            "bytes",
            &[("x", vec![(64.0, 1.0), (128.0, 2.0)]), ("y", vec![])],
        );
        assert_eq!(text.matches("<polyline").count(), 2);
        // Two points and the one in the legend.
        assert_eq!(text.matches("<circle").count(), 3);

        let text = dots("t", "", &["x"], &[("kill".to_owned(), vec![vec![5.0, 6.0, 7.0]])]);
        assert_eq!(text.matches("<circle").count(), 4);
    }
}
