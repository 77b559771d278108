//! What of a camera can be set while it runs, and what is set.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::Bitrate;

/// What somebody wants to be otherwise. Empty: they want to know what is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Pixels; even.
    pub size: Option<(NonZeroU32, NonZeroU32)>,
    /// Pictures a second.
    pub fps: Option<NonZeroU32>,
    pub bitrate: Option<Bitrate>,
    /// By name.
    pub controls: BTreeMap<String, ControlValue>,
}

/// What a control is set to: a number, on or off, or the text of a menu's entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number, true, false, or the text of a menu's entry")]
pub enum ControlValue {
    Switch(bool),
    Number(i64),
    Text(String),
}

/// How a camera is set.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Pixels; `None` until the first picture.
    pub size: Option<(u32, u32)>,
    /// Pictures a second, where the camera says so.
    pub fps: Option<f64>,
    pub bitrate: Bitrate,
    pub controls: Vec<Control>,
}

/// Something that a camera lets be set, such as its brightness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Control {
    /// The driver's name for it in lower case, with `_` between words, as `v4l2-ctl -l` prints it; of rpicam-vid, its option's.
    #[serde(skip)]
    pub name: String,
    #[serde(rename = "type")]
    pub kind: ControlKind,
    /// What it is now; a button is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<i64>,
    /// A menu's entries.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub menu: BTreeMap<i64, String>,
    /// Whether it can only be read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// What a control's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlKind {
    Integer,
    Boolean,
    Menu,
    /// Does something each time it is set, to whatever.
    Button,
}

impl Control {
    /// The number that `value` is for this control.
    ///
    /// # Errors
    /// A sentence that says what it takes.
    pub fn number(&self, value: &ControlValue) -> Result<i64, String> {
        let name = &self.name;
        if self.read_only {
            return Err(format!("`{name}` can only be read"));
        }
        let number = match (self.kind, value) {
            (ControlKind::Button, _) => return Ok(1),
            (ControlKind::Boolean, ControlValue::Switch(on)) => return Ok(i64::from(*on)),
            (ControlKind::Boolean, ControlValue::Number(number @ (0 | 1))) => return Ok(*number),
            (ControlKind::Boolean, _) => return Err(self.takes()),
            (_, ControlValue::Number(number)) => *number,
            (ControlKind::Menu, ControlValue::Text(text)) => {
                let entry = self.menu.iter().find(|(_, entry)| entry.eq_ignore_ascii_case(text));
                *entry.ok_or_else(|| self.takes())?.0
            }
            (_, ControlValue::Switch(_) | ControlValue::Text(_)) => return Err(self.takes()),
        };
        let (minimum, maximum) = (self.minimum.unwrap_or(i64::MIN), self.maximum.unwrap_or(i64::MAX));
        let known = self.kind != ControlKind::Menu || self.menu.contains_key(&number);
        // Wider than both: a menu has no minimum, and drivers have any.
        let above = i128::from(number) - i128::from(minimum);
        let on_step = above.checked_rem(self.step.unwrap_or(1).into()).unwrap_or(0) == 0;
        if !(minimum..=maximum).contains(&number) || !known || !on_step {
            return Err(self.takes());
        }
        Ok(number)
    }

    fn takes(&self) -> String {
        let name = &self.name;
        let (minimum, maximum, step) = (
            self.minimum.unwrap_or_default(),
            self.maximum.unwrap_or_default(),
            self.step.unwrap_or(1),
        );
        match self.kind {
            ControlKind::Boolean => format!("`{name}` takes true or false"),
            ControlKind::Menu => {
                let entries: Vec<_> = self.menu.iter().map(|(number, text)| format!("{number} \"{text}\"")).collect();
                format!("`{name}` takes one of {}", entries.join(", "))
            }
            ControlKind::Integer if step > 1 => format!("`{name}` takes a whole number from {minimum} to {maximum} in steps of {step}"),
            ControlKind::Integer | ControlKind::Button => format!("`{name}` takes a whole number from {minimum} to {maximum}"),
        }
    }
}

/// Why a camera is not set as somebody wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The camera can't; the sentence says what it can.
    #[error("{0}")]
    Impossible(String),
    /// It is not there now.
    #[error("{0}")]
    Away(String),
}

/// A wish on its way to the camera's thread, which alone owns the device.
pub struct Order {
    pub change: Change,
    reply: Box<dyn FnOnce(Result<Settings, SetError>) + Send>,
}

impl Order {
    /// `reply` is called once, from the camera's thread; it must not block.
    pub fn new(change: Change, reply: impl FnOnce(Result<Settings, SetError>) + Send + 'static) -> Self {
        Self {
            change,
            reply: Box::new(reply),
        }
    }

    /// Tells what came of it.
    pub fn answer(self, result: Result<Settings, SetError>) {
        (self.reply)(result);
    }
}

impl std::fmt::Debug for Order {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.change.fmt(formatter)
    }
}

/// Orders that wait; few, as each is carried out before the next picture.
#[derive(Debug, Default)]
pub(super) struct Orders(VecDeque<Order>);

impl Orders {
    const MOST: usize = 8;

    /// Gives the order back if too many wait.
    pub fn push(&mut self, order: Order) -> Result<(), Order> {
        if self.0.len() >= Self::MOST {
            return Err(order);
        }
        self.0.push_back(order);
        Ok(())
    }

    pub fn pop(&mut self) -> Option<Order> {
        self.0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(kind: ControlKind) -> Control {
        Control {
            name: "exposure".into(),
            kind,
            value: Some(4),
            default: Some(4),
            minimum: Some(0),
            maximum: Some(10),
            step: Some(2),
            menu: BTreeMap::new(),
            read_only: false,
        }
    }

    #[test]
    fn a_control_takes_what_it_can_have_and_says_what_that_is() {
        let number = |value| control(ControlKind::Integer).number(&ControlValue::Number(value));
        assert_eq!((number(0), number(10)), (Ok(0), Ok(10)));
        for bad in [-2, 3, 12, i64::MAX, i64::MIN + 1] {
            let refused = number(bad).expect_err("refused");
            assert_eq!(refused, "`exposure` takes a whole number from 0 to 10 in steps of 2", "{bad}");
        }
        let mut menu = control(ControlKind::Menu);
        (menu.minimum, menu.maximum, menu.step, menu.menu) = (
            None,
            None,
            None,
            BTreeMap::from([(1, "Manual Mode".into()), (3, "Aperture Priority Mode".into())]),
        );
        assert_eq!(menu.number(&ControlValue::Text("manual mode".into())), Ok(1));
        assert_eq!(menu.number(&ControlValue::Number(3)), Ok(3));
        let refused = menu.number(&ControlValue::Number(2)).expect_err("no such entry");
        assert_eq!(refused, "`exposure` takes one of 1 \"Manual Mode\", 3 \"Aperture Priority Mode\"");
        let mut switch = control(ControlKind::Boolean);
        (switch.maximum, switch.step) = (Some(1), Some(1));
        assert_eq!(switch.number(&ControlValue::Switch(true)), Ok(1));
        assert_eq!(switch.number(&ControlValue::Number(0)), Ok(0));
        assert!(switch.number(&ControlValue::Text("on".into())).is_err());
        switch.read_only = true;
        assert_eq!(
            switch.number(&ControlValue::Switch(true)),
            Err("`exposure` can only be read".to_owned())
        );
    }

    #[test]
    fn few_orders_wait() {
        let mut orders = Orders::default();
        for _ in 0..Orders::MOST {
            orders.push(Order::new(Change::default(), |_| {})).expect("room");
        }
        assert!(orders.push(Order::new(Change::default(), |_| {})).is_err());
        assert!(orders.pop().is_some());
    }
}
