//! What is asked of the admin interface: the query of a request, read into what it means.

use std::time::Duration;

use crate::config::{parse_endpoint, units};
use crate::relay::departure::Parting;
use crate::relay::sessions::Why;
use crate::relay::view::{Filter, Query, Sort};
use crate::ws::close::{CloseCode, MAX_REASON_BYTES};

/// The parameters of a request. Each is taken by whoever understands it; what nobody took is a
/// mistake that is told.
#[derive(Debug)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads the query of a target.
    pub fn read(query: Option<&str>) -> Self {
        Self(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// The value of a parameter that may stand once; an empty one counts as absent.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1).filter(|value| !value.is_empty())
    }

    /// Whether a parameter is there that needs no value.
    pub fn take_flag(&mut self, name: &str) -> bool {
        let at = self.0.iter().position(|(known, _)| known == name);
        at.is_some_and(|at| !matches!(self.0.remove(at).1.as_str(), "false" | "0"))
    }

    fn parsed<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        self.take(name).map(|text| read(&text).map_err(|e| format!("{name}: {e}"))).transpose()
    }

    /// Which sessions are meant.
    ///
    /// # Errors
    ///
    /// Which parameter is wrong, and how.
    pub fn filter(&mut self) -> Result<Filter, String> {
        let mut ids = Vec::new();
        while let Some(id) = self.take("id") {
            ids.push(u64::from_str_radix(&id, 16).map_err(|_| {
                format!("id: `{id}` is no id: the log and `tidegate sessions` have them")
            })?);
        }
        let endpoint = self
            .take("endpoint")
            .map(|text| parse_endpoint(&text).map_or(text, |address| address.to_string()));
        Ok(Filter {
            ids,
            route: self.take("route"),
            upstream: self.take("upstream"),
            endpoint,
            client: self.parsed("client", units::network)?,
            older: self.parsed("older", duration)?,
            idle: self.parsed("idle", duration)?,
        })
    }

    /// Which sessions are to be listed.
    ///
    /// # Errors
    ///
    /// Which parameter is wrong, and how.
    pub fn query(&mut self) -> Result<Query, String> {
        let order = self.parsed("sort", |text| match text {
            "age" => Ok(Sort::Age),
            "rate" => Ok(Sort::Rate),
            "idle" => Ok(Sort::Idle),
            "bytes" => Ok(Sort::Bytes),
            _ => Err(format!("`{text}` is no order: write age, rate, idle or bytes")),
        })?;
        let limit = self
            .parsed("limit", |text| text.parse().map_err(|_| format!("`{text}` is no number")))?;
        Ok(Query { filter: self.filter()?, order, limit })
    }

    /// With which words sessions are to be closed.
    ///
    /// # Errors
    ///
    /// Which parameter is wrong, and how.
    pub fn parting(&mut self) -> Result<Parting, String> {
        let code = self.parsed("code", |text| {
            text.parse().ok().and_then(CloseCode::new).ok_or_else(|| {
                format!(
                    "`{text}` is no code that a Close may have: write 1001, 1008, 1012, 1013, or \
                     one from 3000 to 4999"
                )
            })
        })?;
        let reason = self.parsed("reason", |text| {
            if text.len() <= MAX_REASON_BYTES {
                Ok(text.to_owned())
            } else {
                Err(format!("{} bytes: a Close has room for {MAX_REASON_BYTES}", text.len()))
            }
        })?;
        let why = Why::Operator;
        Ok(Parting {
            why,
            code: code.unwrap_or(why.code()),
            reason: reason.unwrap_or_else(|| why.name().into()).into(),
        })
    }

    /// How many sessions are to be closed in a second.
    ///
    /// # Errors
    ///
    /// That it is no rate.
    pub fn rate(&mut self) -> Result<Option<f64>, String> {
        self.parsed("rate", |text| {
            let rate = units::Rate::parse_count(text).map_err(|error| error.to_string())?;
            Ok(rate.per_second())
        })
    }

    /// That nothing is left which nobody understood.
    ///
    /// # Errors
    ///
    /// What is.
    pub fn finish(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((unknown, _)) => Err(format!("there is no parameter `{unknown}` here")),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_which_sessions_are_meant() {
        let mut parameters = Parameters::read(Some(
            "route=%2Fchat&client=10.0.0.0/8&older=5m&endpoint=app:3000&sort=rate&limit=3&id=ff&id=1",
        ));
        let query = parameters.query().expect("a good query");
        assert_eq!(query.filter.route.as_deref(), Some("/chat"));
        assert_eq!(query.filter.endpoint.as_deref(), Some("http://app:3000"));
        assert_eq!(query.filter.older, Some(Duration::from_secs(300)));
        assert_eq!(query.filter.ids, [255, 1]);
        assert_eq!((query.order, query.limit), (Some(Sort::Rate), Some(3)));
        assert_eq!(parameters.finish(), Ok(()));
    }

    #[test]
    fn a_wrong_query_is_explained() {
        for (query, part) in [
            ("client=x", "client: `x` is no network"),
            ("older=soon", "older: "),
            ("sort=name", "write age"),
            ("limit=-1", "limit: "),
            ("id=xyz", "is no id"),
        ] {
            let error = Parameters::read(Some(query)).query().expect_err(query);
            assert!(error.contains(part), "{error}");
        }
        for (query, part) in [("code=1006", "1006"), ("code=70000", "70000")] {
            let error = Parameters::read(Some(query)).parting().expect_err(query);
            assert!(error.contains(part), "{error}");
        }
        let error = Parameters::read(Some("rout=x")).finish().expect_err("unknown");
        assert!(error.contains("`rout`"), "{error}");
    }
}
