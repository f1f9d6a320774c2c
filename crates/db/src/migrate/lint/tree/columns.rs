//! Columns and constraints, as far as the rules ask for them.

use squawk_syntax::ast::{self, AstNode, NameLike as _};
use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::facts::{Name, Reader, plain};

#[derive(Debug, Clone)]
pub(in super::super) struct Column {
    pub(in super::super) name: String,
    pub(in super::super) ty: String,
    /// The type's own name, where it is one and not a keyword; without its schema if that is `pg_catalog`.
    pub(in super::super) type_name: Option<Name>,
    pub(in super::super) default: Option<String>,
    pub(in super::super) constraints: Vec<Constraint>,
}

#[derive(Debug, Clone)]
pub(in super::super) struct Constraint {
    pub(in super::super) name: Option<String>,
    pub(in super::super) kind: ConstraintKind,
    pub(in super::super) valid: bool,
    pub(in super::super) at: usize,
}

#[derive(Debug, Clone)]
pub(in super::super) enum ConstraintKind {
    Check { expression: String },
    Unique { columns: Vec<String> },
    Primary { columns: Vec<String> },
    Foreign { columns: Vec<String>, to: Name },
    NotNull,
}

impl Reader<'_> {
    pub(super) fn column(&self, column: &ast::Column) -> Option<Column> {
        let constraints = column.clauses().filter_map(|clause| match clause {
            ast::ColumnClause::ColumnConstraint(constraint) => Some(constraint.syntax().clone()),
            _ => None,
        });
        self.column_of(column.name()?.text(), column.ty(), constraints.collect())
    }

    pub(super) fn added_column(&self, column: &ast::AddColumn) -> Option<Column> {
        let constraints = column.constraints().map(|constraint| constraint.syntax().clone());
        self.column_of(column.column_name()?.text(), column.ty(), constraints.collect())
    }

    fn column_of(
        &self,
        name: String,
        ty: Option<ast::Type>,
        constraints: Vec<SyntaxNode>,
    ) -> Option<Column> {
        let default = constraints.iter().find_map(|node| {
            let default = ast::DefaultConstraint::cast(node.clone())?;
            Some(plain(default.expr()?.syntax()))
        });
        Some(Column {
            ty: ty.as_ref().map(|ty| plain(ty.syntax())).unwrap_or_default(),
            type_name: ty.and_then(|ty| self.type_name(&ty)),
            default,
            constraints: constraints
                .iter()
                .filter_map(|c| self.constraint(c, Some(&name)))
                .collect(),
            name,
        })
    }

    fn type_name(&self, ty: &ast::Type) -> Option<Name> {
        match ty {
            ast::Type::ArrayType(array) => self.type_name(&array.ty()?),
            ast::Type::PathType(named) => self.path_ref(named.path_ref()),
            _ => None,
        }
    }

    /// Of a column's own constraint, `column` is its name.
    pub(super) fn constraint(&self, node: &SyntaxNode, column: Option<&str>) -> Option<Constraint> {
        let own = || column.map(ToOwned::to_owned).into_iter().collect::<Vec<_>>();
        let kind = match node.kind() {
            SyntaxKind::CHECK_CONSTRAINT => {
                let check = ast::CheckConstraint::cast(node.clone())?;
                ConstraintKind::Check { expression: plain(check.expr()?.syntax()) }
            }
            SyntaxKind::UNIQUE_CONSTRAINT => {
                let unique = ast::UniqueConstraint::cast(node.clone())?;
                ConstraintKind::Unique { columns: listed(unique.index_parameters(), own()) }
            }
            SyntaxKind::PRIMARY_KEY_CONSTRAINT => {
                let primary = ast::PrimaryKeyConstraint::cast(node.clone())?;
                ConstraintKind::Primary { columns: listed(primary.index_parameters(), own()) }
            }
            SyntaxKind::FOREIGN_KEY_CONSTRAINT => {
                let foreign = ast::ForeignKeyConstraint::cast(node.clone())?;
                let columns = foreign.from_columns()?.column_name_refs().map(|c| c.text());
                let to = self.table(foreign.table_name_ref())?;
                ConstraintKind::Foreign { columns: columns.collect(), to }
            }
            SyntaxKind::REFERENCES_CONSTRAINT => {
                let foreign = ast::ReferencesConstraint::cast(node.clone())?;
                ConstraintKind::Foreign { columns: own(), to: self.table(foreign.table())? }
            }
            SyntaxKind::NOT_NULL_CONSTRAINT => ConstraintKind::NotNull,
            _ => return None,
        };
        let named = node.children().find_map(ast::ConstraintNameClause::cast);
        Some(Constraint {
            name: named.and_then(|clause| clause.constraint_name()).map(|name| name.text()),
            kind,
            valid: !node.children().any(|child| child.kind() == SyntaxKind::NOT_VALID),
            at: (self.place)(node),
        })
    }
}

fn listed(parameters: Option<ast::IndexParameters>, own: Vec<String>) -> Vec<String> {
    let Some(list) = parameters.and_then(|p| p.column_list()) else { return own };
    let columns = list.syntax().descendants().filter_map(ast::ColumnNameRef::cast);
    columns.map(|column| column.text()).collect()
}

/// The column that an index's item is, if it is no expression.
pub(super) fn indexed(item: &ast::PartitionItem) -> Option<String> {
    match item.expr()? {
        ast::Expr::NameRef(name) => Some(name.text()),
        _ => None,
    }
}
