//! Everything on the client port that is not gRPC: which path goes where, and the answers' outer form. gRPC is told apart by
//! its content type, so that an unknown path is a plain 404 and not a gRPC answer.

mod body;
mod gateway;
mod metrics;
mod probes;

use bytes::Bytes;
use http_body_util::Full;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use crate::config::{API_VERSION, CLUSTER_VERSION};
use crate::grpc::Api;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers one HTTP request.
pub(crate) async fn serve(api: Api, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let mut response = if request.method() == Method::OPTIONS {
        // A browser asking what it may do; the headers below say it.
        text(StatusCode::OK, TEXT, "")
    } else if path == "/v3" {
        redirect("/v3/")
    } else if let Some(call) = path
        .strip_prefix("/v3/")
        .or_else(|| path.strip_prefix("/v3beta/"))
    {
        gateway::serve(api, call, request).await
    } else {
        page(api, &path, request).await
    };
    allow_browsers(response.headers_mut());
    response
}

async fn page(api: Api, path: &str, request: Request<Body>) -> Response<Body> {
    let is_probe = ["/livez", "/readyz"]
        .iter()
        .any(|p| path.strip_prefix(p).is_some_and(is_below));
    if !matches!(path, "/version" | "/health" | "/metrics") && !is_probe {
        return not_found();
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n");
        refused
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET"));
        return refused;
    }
    let query = Query::of(&request);
    match path {
        "/version" => text(StatusCode::OK, JSON, version()),
        "/health" => probes::health(&api, &query).await,
        "/metrics" => text(StatusCode::OK, METRICS, metrics::render(&api.ctx).await),
        _ => probes::check(&api, path, &query).await,
    }
}

fn is_below(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

fn version() -> String {
    format!(
        r#"{{"etcdserver":"{API_VERSION}","etcdcluster":"{CLUSTER_VERSION}","storage":"{CLUSTER_VERSION}"}}"#
    )
}

fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, TEXT, "404 page not found\n")
}

fn redirect(to: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::TEMPORARY_REDIRECT, TEXT, "");
    response
        .headers_mut()
        .insert(header::LOCATION, HeaderValue::from_static(to));
    response
}

/// A whole answer.
fn text(status: StatusCode, kind: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(content.into())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Pages of any origin may call: etcd's default.
fn allow_browsers(headers: &mut HeaderMap) {
    for (name, value) in [
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "accept, content-type, authorization",
        ),
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "POST, GET, OPTIONS, PUT, DELETE",
        ),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// The query of a request. Names and values are plain words here, so nothing is unescaped.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(request: &Request<Body>) -> Query {
        let pairs = request.uri().query().unwrap_or_default().split('&').map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.to_owned())
        });
        Query(pairs.collect())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    fn has_value(&self, name: &str, value: &str) -> bool {
        self.0.iter().any(|(n, v)| n == name && v == value)
    }
}
