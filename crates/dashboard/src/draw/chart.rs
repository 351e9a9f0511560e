//! Charts, drawn as SVG on the server. Colours come from the style sheet, by class.

use std::time::SystemTime;

use maud::{Markup, html};

use super::time;

/// A small chart without axes: one step for each value, oldest first, in one path.
///
/// `title` says to a screen reader and to a resting pointer what the chart shows.
pub fn sparkline(values: &[f64], title: &str) -> Markup {
    const HEIGHT: u32 = 24;
    const STEP: usize = 4;
    let most = values.iter().copied().fold(0.0, f64::max);
    let height = |value: f64| if value > 0.0 { (value / most * f64::from(HEIGHT)).round().max(1.0) as u32 } else { 0 };
    let mut path = format!("M0 {HEIGHT}");
    for equal in values.chunk_by(|one, next| height(*one) == height(*next)) {
        path.push_str(&format!("V{}h{}", HEIGHT - height(equal[0]), STEP * equal.len()));
    }
    let width = STEP * values.len();
    html! {
        svg.spark role="img" viewBox=(format!("0 0 {width} {HEIGHT}")) preserveAspectRatio="none" {
            title { (title) }
            path d=(format!("{path}V{HEIGHT}z")) {}
        }
    }
}

/// The bars of one colour in a [`bars`] chart.
pub struct Series<'a> {
    /// The class of the bars, which the style sheet colours.
    pub class: &'static str,
    /// What the bars count.
    pub name: &'static str,
    /// One value for each place, oldest first.
    pub values: &'a [f64],
}

/// A chart of stacked bars over time, with its largest value and with times below.
///
/// `starts` has the time of each place; `written` writes a value. Each bar's title has its time and its values.
pub fn bars(title: &str, series: &[Series<'_>], starts: &[SystemTime], written: impl Fn(f64) -> String) -> Markup {
    const WIDTH: f64 = 720.0;
    const HEIGHT: f64 = 140.0;
    let sum = |place: usize| series.iter().map(|one| one.values.get(place).copied().unwrap_or(0.0)).sum::<f64>();
    let most = (0..starts.len()).map(sum).fold(0.0, f64::max);
    let bar = WIDTH / starts.len().max(1) as f64;
    html! {
        figure.chart {
            figcaption {
                (title)
                @for one in series.iter().filter(|_| series.len() > 1) { span.legend.(one.class) { (one.name) } }
                span.most { "up to " (written(most)) }
            }
            svg role="img" aria-label=(format!("{title}, up to {}", written(most)))
                viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" {
                line.grid x1="0" y1="0.5" x2=(WIDTH) y2="0.5" {}
                line.grid x1="0" y1=(HEIGHT / 2.0) x2=(WIDTH) y2=(HEIGHT / 2.0) {}
                line.grid x1="0" y1=(HEIGHT - 0.5) x2=(WIDTH) y2=(HEIGHT - 0.5) {}
                @for (place, start) in starts.iter().enumerate() {
                    g {
                        title {
                            (time::utc(*start))
                            @for one in series { ", " (written(value(one, place))) " " (one.name) }
                        }
                        rect.hit x=(figure(bar * place as f64)) y="0" width=(figure(bar)) height=(HEIGHT) {}
                        @for (below, one) in series.iter().enumerate() {
                            @let base: f64 = series[..below].iter().map(|one| value(one, place)).sum();
                            @let height = |value: f64| if most > 0.0 { value / most * HEIGHT } else { 0.0 };
                            @if value(one, place) > 0.0 {
                                rect.(one.class) x=(figure(bar * place as f64 + bar * 0.1)) width=(figure(bar * 0.8))
                                    y=(figure(HEIGHT - height(base + value(one, place))))
                                    height=(figure(height(value(one, place)).max(1.0))) {}
                            }
                        }
                    }
                }
            }
            @if let (Some(first), Some(last)) = (starts.first(), starts.last()) {
                div.axis { (time::short(*first)) (time::short(*last)) }
            }
        }
    }
}

fn value(series: &Series<'_>, place: usize) -> f64 {
    series.values.get(place).copied().unwrap_or(0.0)
}

/// Writes a coordinate with one decimal, which keeps a page small.
fn figure(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_largest_value_has_the_highest_step() {
        let spark = |values: &[f64]| sparkline(values, "jobs").into_string();
        assert!(spark(&[0.0, 1.0, 2.0, 2.0]).contains(r#"d="M0 24V24h4V12h4V0h8V24z""#));
        assert!(spark(&[0.001, 1000.0]).contains(r#"d="M0 24V23h4V0h4V24z""#), "a small value is seen");
        assert!(spark(&[0.0; 3]).contains(r#"d="M0 24V24h12V24z""#));
    }

    #[test]
    fn a_chart_stacks_its_series() {
        let series = [
            Series { class: "good", name: "completed", values: &[3.0, 0.0] },
            Series { class: "bad", name: "failed", values: &[1.0, 0.0] },
        ];
        let starts = [0, 60].map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let chart = bars("Jobs", &series, &starts, |value| value.to_string()).into_string();
        assert!(chart.contains("1970-01-01 00:00:00 UTC, 3 completed, 1 failed"), "{chart}");
        assert!(chart.contains(r#"y="35.0" height="105.0""#) && chart.contains(r#"y="0.0" height="35.0""#), "{chart}");
    }
}
